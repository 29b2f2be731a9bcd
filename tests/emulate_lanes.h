/* The operations on vectors of csrc/hash_lanes.h in plain C, so that the hashes are tested
   on machines without the instructions. */
typedef din_lanes_v din_mask_v;
typedef din_halves_v din_half_mask_v;

DIN_INLINE din_lanes_v din_mul32_v(din_lanes_v x, din_lanes_v y) {
  return (x & DIN_LOW32) * (y & DIN_LOW32);
}
DIN_INLINE din_lanes_v din_min32(din_lanes_v x, din_lanes_v y) {
  const din_halves_v a = (din_halves_v)x, b = (din_halves_v)y;
  const din_halves_v is_less = (din_halves_v)(a < b);
  return (din_lanes_v)((a & is_less) | (b & ~is_less));
}
DIN_INLINE din_lanes_v din_left_v(din_lanes_v x, din_lanes_v bits) {
  for (int i = 0; i < DIN_LANES; ++i) x[i] = din_left_1(x[i], bits[i]);
  return x;
}
DIN_INLINE din_lanes_v din_right_v(din_lanes_v x, din_lanes_v bits) {
  for (int i = 0; i < DIN_LANES; ++i) x[i] = din_right_1(x[i], bits[i]);
  return x;
}
DIN_INLINE din_mask_v din_above_v(din_lanes_v x, int64_t k) {
  return (din_lanes_v)((din_signed_v)x > k);
}
DIN_INLINE int din_any_of_v(din_mask_v mask) {
  uint64_t any = 0;
  for (int i = 0; i < DIN_LANES; ++i) any |= mask[i];
  return any != 0;
}
DIN_INLINE din_lanes_v din_choose_v(din_mask_v mask, din_lanes_v yes, din_lanes_v no) {
  return (yes & mask) | (no & ~mask);
}
DIN_INLINE din_lanes_v din_swap_bytes_v(din_lanes_v x) {
  for (int i = 0; i < DIN_LANES; ++i) x[i] = din_swap_bytes_1(x[i]);
  return x;
}
DIN_INLINE void din_words_v(din_lanes_v p, din_lanes_v sizes, int room,
                            din_lanes_v w[4]) {
  for (int i = 0; i < DIN_LANES; ++i) {
    uint64_t of_key[4];
    din_words_1(p[i], sizes[i], room, of_key);
    for (int k = 0; k < 4; ++k) w[k][i] = of_key[k];
  }
}
DIN_INLINE void din_two_words_v(din_lanes_v p, din_mask_v mask, din_lanes_v w[2]) {
  for (int i = 0; i < DIN_LANES; ++i) {
    uint64_t of_key[2];
    din_two_words_1(p[i], mask[i] != 0, of_key);
    for (int k = 0; k < 2; ++k) w[k][i] = of_key[k];
  }
}
DIN_INLINE din_halves_v din_join_v(const din_lanes_v x[2], int is_high) {
  din_halves_v out = {0};
  for (int i = 0; i < 2 * DIN_LANES; ++i) {
    out[i] = (uint32_t)(x[i / DIN_LANES][i % DIN_LANES] >> (is_high ? 32 : 0));
  }
  return out;
}
DIN_INLINE din_half_mask_v din_halves_above_v(din_halves_v x, int32_t k) {
  return (din_halves_v)((din_signed_halves_v)x > k);
}
DIN_INLINE int din_any_of_half_v(din_half_mask_v mask) {
  return din_any_of_v((din_lanes_v)mask);
}
DIN_INLINE din_halves_v din_choose_halves_v(din_half_mask_v mask, din_halves_v yes,
                                            din_halves_v no) {
  return (yes & mask) | (no & ~mask);
}
DIN_INLINE void din_put_halves(uint64_t *to, din_halves_v x) {
  for (int i = 0; i < 2 * DIN_LANES; ++i) to[i] = x[i];
}

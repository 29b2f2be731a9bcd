package main

import (
	"encoding/binary"
	"math/bits"
)

const (
	p1 = 0x9e3779b185ebca87
	p2 = 0xc2b2ae3d27d4eb4f
	p3 = 0x165667b19e3779f9
	p4 = 0x85ebca77c2b2ae63
	p5 = 0x27d4eb2f165667c5
)

func round(a, word uint64) uint64 { return bits.RotateLeft64(a+word*p2, 31) * p1 }

// xxh64 is XXH64, https://github.com/Cyan4973/xxHash.
func xxh64(key []byte, seed uint64) uint64 {
	size, h := uint64(len(key)), seed+p5
	if len(key) >= 32 {
		v := [4]uint64{seed + p1, seed + p2, seed, seed}
		v[0] += p2
		v[3] -= p1
		for ; len(key) >= 32; key = key[32:] {
			for i := range v {
				v[i] = round(v[i], binary.LittleEndian.Uint64(key[8*i:]))
			}
		}
		h = 0
		for i, turn := range []int{1, 7, 12, 18} {
			h += bits.RotateLeft64(v[i], turn)
		}
		for _, a := range v {
			h = (h^round(0, a))*p1 + p4
		}
	}
	h += size
	for ; len(key) >= 8; key = key[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(key)), 27)*p1 + p4
	}
	for ; len(key) >= 4; key = key[4:] {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(key))*p1, 23)*p2 + p3
	}
	for _, b := range key {
		h = bits.RotateLeft64(h^uint64(b)*p5, 11) * p1
	}
	h = (h ^ h>>33) * p2
	h = (h ^ h>>29) * p3
	return h ^ h>>32
}

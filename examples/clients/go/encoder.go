package main

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
)

func bytesOf(v any) []byte {
	if text, ok := v.(string); ok {
		return []byte(text)
	}
	found, _ := hex.DecodeString(v.(map[string]any)["hex"].(string))
	return found
}

func offset(v any, buckets, seed uint64) int64 {
	if v == nil {
		return 0
	}
	return int64(1 + xxh64(bytesOf(v), seed)%(buckets-1)) // of unsigned integers
}
func user(v any) int64  { return offset(v, 1000, 42) }
func goods(v any) int64 { return offset(v, 5000, 0) }

func shop(v any) int64 { // pmod: of the signed hash, never negative
	if v == nil {
		return 0
	}
	number, err := strconv.ParseUint(v.(string), 10, 64)
	if signed, wrong := strconv.ParseInt(v.(string), 10, 64); err != nil && wrong == nil {
		number = uint64(signed)
	}
	key := binary.LittleEndian.AppendUint64(nil, number)
	return (int64(xxh64(key, 0))%500 + 500) % 500
}

func slot(v any) int64 {
	ids := map[string]int64{"top": 1, "side": 2, "bottom": 3}
	if v == nil {
		return 0
	} else if id, ok := ids[string(bytesOf(v))]; ok {
		return id
	}
	return 4
}

func scale(x float64) float64 { return float64(float32((x - 20.0) / 7.5)) }
func price(v any) float64 {
	x := math.NaN()
	if number, ok := v.(float64); ok {
		x = number
	}
	if y := scale(x); !math.IsNaN(y) && !math.IsInf(y, 0) {
		return y
	}
	return scale(20.0)
}

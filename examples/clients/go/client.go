// Raw rows to ids in Go: go run . VECTORS
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type row map[string]any // as vectors.jsonl has it; nil is null

type tensor struct {
	Shape []int     `json:"shape"`
	Data  []float64 `json:"data"`
}

type vector struct {
	Requests, Candidates []row
	Owners               []float64 `json:"request_of_candidate"`
	Inputs               map[string]tensor
}

func main() {
	file, err := os.Open(os.Args[1] + "/vectors.jsonl")
	if err != nil {
		panic(err)
	}
	wrong, lines := 0, json.NewDecoder(file)
	for lines.More() {
		var v vector
		if err := lines.Decode(&v); err != nil {
			panic(err)
		}
		for name, made := range encode(v) {
			if fmt.Sprint(made) != fmt.Sprint(v.Inputs[name]) {
				wrong++
			}
		}
	}
	fmt.Printf("{\"wrong\":%d}\n", wrong)
}

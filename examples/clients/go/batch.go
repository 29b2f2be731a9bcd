package main

func column(rows []row, name string, idOf func(any) int64) tensor {
	made := tensor{Shape: []int{len(rows)}}
	for _, r := range rows {
		made.Data = append(made.Data, float64(idOf(r[name])))
	}
	return made
}

func lists(rows []row, name string, idOf func(any) int64) (ids, lengths tensor) {
	kept, width := make([][]any, len(rows)), 0
	for i, r := range rows {
		kept[i], _ = r[name].([]any) // of null: empty
		if len(kept[i]) > 20 {
			kept[i] = kept[i][len(kept[i])-20:] // the newest
		}
		if len(kept[i]) > width {
			width = len(kept[i])
		}
	}
	ids = tensor{[]int{len(rows), width}, make([]float64, len(rows)*width)}
	for i, list := range kept {
		lengths.Data = append(lengths.Data, float64(len(list)))
		for t, v := range list { // zeros on the right
			ids.Data[i*width+t] = float64(idOf(v))
		}
	}
	lengths.Shape = []int{len(rows)}
	return ids, lengths
}

// encode makes the graph's inputs; ids are int64 there, and price is float32.
func encode(v vector) map[string]tensor {
	users, items := v.Requests, v.Candidates
	made := map[string]tensor{
		"user_id":  column(users, "user_id", user),
		"goods_id": column(items, "goods_id", goods),
		"shop_id":  column(items, "shop_id", shop),
		"slot":     column(items, "slot", slot),
	}
	made["hist_goods_id"], made["history.lengths"] = lists(users, "hist_goods_id", goods)
	made["hist_shop_id"], _ = lists(users, "hist_shop_id", shop)
	prices := tensor{Shape: []int{len(items), 1}}
	for _, item := range items {
		prices.Data = append(prices.Data, price(item["price"]))
	}
	made["price"] = prices
	made["request_of_candidate"] = tensor{[]int{len(v.Owners)}, v.Owners}
	return made
}

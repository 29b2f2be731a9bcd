"""Jobs over whole data sets, built on `Predictor`."""

"""The trained model: evaluated, exported, quantized to int8 where that is exact."""

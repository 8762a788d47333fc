"""What a trained model is worth and good for: scores, predictions, exports, latency."""

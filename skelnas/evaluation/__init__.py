"""The use of trained models: scores, predictions, exports, latency."""

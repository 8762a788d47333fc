"""The simulation behind the synthetic source: bodies, motions, actors and a sensor."""

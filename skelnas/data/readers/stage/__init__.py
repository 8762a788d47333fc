"""The stage of the synthetic source: bodies, their motions, actors who play, and a sensor."""

"""How good generated digits are, in figures: measured against images that nothing was trained on."""

"""What the network looks like; see net.py for the kinds of layers."""

CHANNELS = 8  # 4..32 log
DROPOUT = 0.0  # 0..0.6
LAYERS = [["conv", CHANNELS, 3], ["relu"], ["pool", 2], ["dropout", DROPOUT], ["linear", 10]]

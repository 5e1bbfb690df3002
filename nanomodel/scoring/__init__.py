"""How a score is made of what model servers answer; `nanomodel.score` is the process that does it.

windows         a split, cut into what the model reads at a time
server          in the candidate's processes: one loaded model, and the memory in which it answers
client          asks a server, and checks every answer
blind           asks a fresh server about positions before anything has shown what follows
probes          compares two servers: no peeking at later tokens, no memory of earlier questions
bits_per_byte   the whole: from weights to a score
"""

"""How a score is made of what two model servers answer; `nanomodel.score` is the process that does it.

windows         a split, cut into what the model reads at a time
server          in the candidate's processes: one loaded model, and the memory in which it answers
client          asks a server, and checks every answer
probes          compares two servers: no peeking at later tokens, no memory of earlier questions
bits_per_byte   the whole: from weights to a score
"""

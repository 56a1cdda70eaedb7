"""Homomorphic encryption as a device: in, parties' values and an SPU's secrets; out, ciphertexts to compute on.

heu = spu.HEU(sk_keeper="alice", evaluators=["bob"])
total = (x.to(heu).encrypt() * weights.to(heu)).sum()        # x at alice, weights at bob, who computes
total.to(alice), total.to(bob), total.to(dev)                # decrypted for one party, or shared on an SPU
"""

from spuvm.he.device import HEU as HEU
from spuvm.he.object import HEUObject as HEUObject

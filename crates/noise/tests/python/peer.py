"""A Noise peer that is not ours: sends back what it gets, and ends when it gets the empty message.

Usage: peer.py PORT PROTOCOL initiator|responder [OUR_PRIVATE_KEY] [THEIR_PUBLIC_KEY], both keys in hex.
"""

import socket
import sys

from noise.connection import Keypair, NoiseConnection

port, protocol, role, *keys = sys.argv[1:]
noise = NoiseConnection.from_name(protocol.encode())
if role == "initiator":
    noise.set_as_initiator()
else:
    noise.set_as_responder()
noise.set_prologue(b"a test")
if keys:
    noise.set_keypair_from_private_bytes(Keypair.STATIC, bytes.fromhex(keys[0]))
if len(keys) > 1:
    noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, bytes.fromhex(keys[1]))
noise.start_handshake()

stream = socket.create_connection(("127.0.0.1", int(port))).makefile("rwb")


def read():
    return stream.read(int.from_bytes(stream.read(2), "big"))


def write(message):
    stream.write(len(message).to_bytes(2, "big") + message)
    stream.flush()


writes = role == "initiator"
while not noise.handshake_finished:
    if writes:
        write(noise.write_message())
    else:
        noise.read_message(read())
    writes = not writes

while clear := noise.decrypt(read()):
    write(noise.encrypt(clear))
write(noise.encrypt(b""))

"""Uploads through Xet: the client sends chunks packed in xorbs, and a shard that tells how files are made of them.

The server puts the files together again and keeps them as any other large file; downloads need no Xet.
"""

"""Uploads through Xet: the client sends chunks packed in xorbs, and a shard that lists the chunks of each file.

The server assembles the files and stores them like other large files; downloads do not use Xet.
"""

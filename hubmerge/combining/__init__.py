"""Streams of one base model, merged by different people or machines, combined into one by adding their states."""

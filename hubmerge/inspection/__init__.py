"""What a checkpoint, a stream or a state is, and what each entry of a stream gives to the merge."""

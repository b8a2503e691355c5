"""One run of a recipe: merge, write, score and publish the missing steps."""

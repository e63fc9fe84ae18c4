"""The nouns: grids, volumes, prompts, models and errors. numpy only."""

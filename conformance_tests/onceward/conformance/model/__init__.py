"""The suite's own, simple idea of what a store must do; deliberately not the contracts' transitions."""

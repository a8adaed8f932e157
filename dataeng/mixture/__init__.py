"""Mixture weights: where they come from (`policies`), how losses move them (`reweighting`), how a manifest is made
of packs (`build`), and in which order a domain's rows are read (`permutation`). NumPy only."""

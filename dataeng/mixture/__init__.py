"""Mixture weights: where they come from (`policies`), how losses move them (`reweighting`), how a manifest is made
of packs (`build`), which domain comes next (`blending`) and in which order its rows do (`permutation`)."""

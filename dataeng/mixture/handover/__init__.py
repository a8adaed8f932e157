"""A mixture as the configuration of other trainers: Megatron-LM, nanotron, torchtitan, LLM Foundry."""

"""Flags of 0.1 that are no more, and what does their work."""

RENAMED = {
  "random": "--sampler=random --samples=N",
  "random_seed": "--sampler_seed",
  "mnist_manual_dir": "--manual_dir",
  "awakening_rate": "--regrowth_rate",
  "density_rule": "--ranking (of `schedule`: --search=guided)",
  "objectives": "--ranking=pareto",
  "dormancy": "--search (guided is by saliency; --saliency=random is blind)",
  "final_scale_deviation": "--scale_deviation=FIRSTtoLAST",
}

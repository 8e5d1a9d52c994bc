"""The numbers of tests/statistics.rs, from PyTorch in 64 bits: python tests/torch/batch_norm.py"""
import torch

torch.set_default_dtype(torch.float64)
norm = torch.nn.BatchNorm1d(2)
with torch.no_grad():
    norm.weight.copy_(torch.tensor([1.5, -0.5]))
    norm.bias.copy_(torch.tensor([0.25, 1.0]))
for step in range(3):
    x = torch.tensor([[float((step * 7 + row * 5 + i * 3) % 11) / 4 - 1 for i in range(2)] for row in range(6)])
    x.requires_grad_(True)
    norm.zero_grad()
    y = norm(x)
    c = torch.tensor([[float((row * 3 + i * 2) % 5) - 2 for i in range(2)] for row in range(6)])
    (y * c).sum().backward()
    for name, value in [("y", y), ("gain", norm.weight.grad), ("bias", norm.bias.grad), ("x", x.grad),
                        ("mean", norm.running_mean), ("variance", norm.running_var)]:
        print(step, name, [float(f"{v:.15g}") for v in value.flatten().tolist()])
norm.eval()
print("eval y", [float(f"{v:.15g}") for v in norm(torch.tensor([[1.0, -1.0], [0.5, 3.0]])).flatten().tolist()])

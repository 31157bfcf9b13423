# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Flat minima: a comparison of SGD, SAM and GSAM
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/YOUR_ACCOUNT/sam_optax/blob/main/notebooks/flat_minima.ipynb)
#
# SAM is designed to find flat minima. This notebook trains one network with SGD, SAM and GSAM, and measures the
# sharpness of the three minima in four ways:
#
# - the largest increase of the loss in a ball around the minimum
# - the dependence of this increase on the radius of the ball
# - the curvature
# - the loss landscape
#
# The last section shows how measures of sharpness can mislead. The notebook takes about a minute on two cores of a CPU.

# %% [markdown]
# ## Install
#
# This notebook requires scikit-learn for the data, and the library with two extras: `plots` for the figures and
# `curvature` for the eigenvalues. The cell installs only the packages that are missing. The project is not published
# yet: run `pip install '.[curvature,plots]'` in a clone of the repository before you run this notebook.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/YOUR_ACCOUNT/sam_optax"

packages = {
    "sam_optax": f"sam_optax[curvature,plots] @ git+{REPOSITORY}",
    "matfree": "matfree",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
}
missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import sam_optax
from sam_optax import sharpness
from sam_optax.sharpness import plots

# %% [markdown]
# ## Settings
#
# - `EPOCHS` is the number of epochs of each run. With few epochs, the parameters are far from a minimum, and the
#   gradient dominates the worst-case sharpness.
# - `SEEDS` is the number of runs of each method, each with its own seed.
# - `RADII` are the radii at which the worst-case sharpness is measured.
# - `POINTS` is the number of points of a landscape along each direction.

# %% tags=["parameters"]
EPOCHS = 60
SEEDS = 3
RADII = tuple(1e-5 * 10 ** (k / 2) for k in range(8))
POINTS = 21

# %% [markdown]
# ## Training
#
# The data are scikit-learn's digits, images of 8x8 pixels. The training set has 1,024 images, and the test set has 773.
# The model is a network with one hidden layer. All methods use the same base optimizer, the same initial parameters and
# the same data order.

# %%
digits = load_digits()
images, labels = np.float32(digits.images.reshape(-1, 64) / 16 - 0.3), np.int32(digits.target)
order = np.random.default_rng(0).permutation(len(labels))
train, test = ((images[rows], labels[rows]) for rows in (order[:1024], order[1024:]))


def init(key, sizes=(64, 64, 10)):
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [{"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)} for k, n, m in pairs]


def predict(params, x):
    hidden = jax.nn.relu(x @ params[0]["w"] + params[0]["b"])
    return hidden @ params[1]["w"] + params[1]["b"]


def loss_fn(params, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), y).mean()


def error(params, batch):
    x, y = batch
    return (predict(params, x).argmax(1) != y).mean()


# %%
METHODS = {
    "SGD": sam_optax.sam(rho=0.0),  # at a radius of 0, SAM is the base optimizer
    "SAM": sam_optax.sam(rho=0.2),
    "GSAM": sam_optax.gsam(rho=0.2, alpha=0.1),
}
value_and_grad = sam_optax.value_and_grad(loss_fn)


def fit(method, seed):
    """Trains for EPOCHS epochs with a batch size of 64, and returns the parameters."""
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    @jax.jit
    def step(params, opt_state, batch):
        _, grads, grad_fn = value_and_grad(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), opt_state

    params = init(jax.random.key(seed))
    opt_state, rng = tx.init(params), np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for rows in rng.permutation(1024).reshape(-1, 64):
            params, opt_state = step(params, opt_state, (train[0][rows], train[1][rows]))
    return params


minima = {name: [fit(method, seed) for seed in range(SEEDS)] for name, method in METHODS.items()}
print("seed 0     training loss   test loss   test error")
for name, (params, *_) in minima.items():
    print(f"{name:11}{loss_fn(params, train):13.5f}{loss_fn(params, test):12.3f}{100 * error(params, test):11.2f}%")

# %% [markdown]
# All three networks fit the training set. Their test errors differ by only a few of the 773 images, and another seed
# may change the order of the methods. This notebook therefore compares the minima, and not the test errors.
#
# ## Worst-case sharpness
#
# The worst-case sharpness is the largest increase of the loss if no parameter changes by more than ρ. It is estimated
# by gradient ascent (APGD, 20 steps) on several batches, and averaged over them. `first_order` is the part of the
# increase that the gradient explains. If this part is large, the parameters are not close to a minimum, and the
# sharpness depends on the slope of the loss rather than on its curvature.

# %%
batches = [(train[0][i : i + 128], train[1][i : i + 128]) for i in range(0, 1024, 128)]
RHO = 0.003
print(f"worst-case sharpness at ρ = {RHO}, mean ± standard deviation over {SEEDS} seeds")
for name, runs in minima.items():
    results = [sharpness.worst_case(loss_fn, params, batches, rho=RHO) for params in runs]
    values = np.array([result.sharpness for result in results])
    fraction = np.mean([result.first_order / result.sharpness for result in results])
    print(f"{name:5} {values.mean():.4f} ± {values.std(ddof=1):.4f}, first-order part {100 * fraction:.0f}%")

# %% [markdown]
# ## Sharpness over radii
#
# The sharpness at a single radius gives little information, so it is measured at several radii. Both axes of the upper
# panel are logarithmic. A slope of 1 means that the gradient dominates the sharpness, and a slope of 2 means that the
# curvature does. The lower panel shows the slope.

# %%
curves = {name: sharpness.curve(loss_fn, params, batches, rhos=RADII) for name, (params, *_) in minima.items()}
plots.plot_curve(curves, marks=(0.0002, RHO))

# %% [markdown]
# At small radii, the slope is near 1. The sharpness is then proportional to the ℓ1 norm of the gradient, and mostly
# shows how far training has converged. At larger radii, the curvature becomes important, and the slope rises to 2 and
# above. At the largest radius, the loss is hundreds of times that of the minimum, and gives little information about
# it. If two curves cross, the radius determines which minimum appears flatter. The curves of SAM and GSAM are nearly
# equal with these settings.
#
# ## Curvature
#
# The largest eigenvalue of the Hessian is the curvature along the sharpest direction. The trace of the Hessian is the
# sum of all curvatures. Both describe only an infinitesimal neighbourhood of the parameters. The following values are
# those of seed 0. The trace is a stochastic estimate, printed with its standard error.

# %%
for name, (params, *_) in minima.items():
    top = sharpness.top_eigenvalue(loss_fn, params, batches)
    trace = sharpness.trace(loss_fn, params, batches, samples=30)
    print(f"{name:5} largest eigenvalue {top:7.3f}   trace {float(trace):7.2f} ± {float(trace.standard_error):.2f}")

# %% [markdown]
# ## Loss landscapes
#
# The figure shows the loss on a plane through each minimum of seed 0. The plane is spanned by two random directions,
# which are the same for all three networks. The directions are scaled filter by filter to the norms of the weights.
# Otherwise a network would appear flatter only because its weights are larger.

# %%
coordinates = np.linspace(-1, 1, POINTS)
planes = {
    name: sharpness.landscape(
        loss_fn, params, batches, sharpness.random_directions(params, jax.random.key(7)), coordinates=coordinates
    )
    for name, (params, *_) in minima.items()
}
plots.plot_landscapes(planes)

# %% [markdown]
# The network has 4,810 parameters, and only a few directions are sharp. A random plane usually contains none of them.
# The next figure shows the loss along the sharpest direction of each minimum, the eigenvector of the largest
# eigenvalue.

# %%
sharpest = {
    name: sharpness.landscape(
        loss_fn,
        params,
        batches,
        sharpness.eigenpairs(loss_fn, params, batches, 1).vectors,
        coordinates=coordinates,
    )
    for name, (params, *_) in minima.items()
}
plots.plot_landscapes(sharpest)

# %% [markdown]
# The last figure shows the loss along the straight line through the minima of SGD, at 0, and SAM, at 1. Keskar et al.
# (2017) used such figures to compare the minima of small and large batches. A barrier between the minima means that
# they are not connected by a straight path of low loss.

# %%
line = sharpness.landscape(
    loss_fn,
    minima["SGD"][0],
    batches,
    [sharpness.toward(minima["SGD"][0], minima["SAM"][0])],
    coordinates=np.linspace(-0.5, 1.5, 2 * POINTS - 1),
)
plots.plot_landscape(line, "Loss between the minima of SGD (0) and SAM (1)")

# %% [markdown]
# ## How measures of sharpness can mislead
#
# A ReLU network computes the same function if the parameters of one layer are multiplied by a positive factor and the
# weights of the next layer are divided by it. A measure of flatness should therefore not change. The next cell rescales
# SAM's minimum: it divides the first layer by ten and multiplies the weights of the second layer by ten.

# %%
first, second = minima["SAM"][0]
scaled = [jax.tree.map(lambda w: w / 10, first), {"w": 10 * second["w"], "b": second["b"]}]
difference = jnp.abs(predict(scaled, test[0]) - predict(minima["SAM"][0], test[0])).max()
print(f"largest difference of the logits: {difference:.6f}")
for adaptive in (False, True):
    before, after = (
        sharpness.worst_case(loss_fn, params, batches, rho=RHO, adaptive=adaptive).sharpness
        for params in (minima["SAM"][0], scaled)
    )
    print(f"adaptive={adaptive!s:5}  before {float(before):.5f}  after {float(after):.5f}")

# %% [markdown]
# The non-adaptive sharpness of the rescaled network is many times larger, although the network computes the same
# function. The adaptive sharpness, in which the radius is relative to the size of each weight, is unchanged up to
# rounding. Therefore, compare non-adaptive sharpness only between networks of the same architecture that were trained
# alike, as above.
#
# ## Interpretation
#
# - Different measures of sharpness can disagree. Compare several of them before you conclude that a minimum is flatter.
#   Of the measures above, only the worst-case sharpness at one radius is measured for several seeds.
# - These results are for one small network on one small data set.
# - A flatter minimum does not always have a lower test error. Here, the test errors differ by only a few images.
#
# ## Further reading
#
# - `docs/sharpness.md` describes all measures, their costs and their invariances.
# - `docs/results` has the sharpness of the runs of the study.
# - `.venv/bin/python -m experiments.sharpness runs/digits --measures curve landscape` measures the sharpness of runs
#   of the experiment program.

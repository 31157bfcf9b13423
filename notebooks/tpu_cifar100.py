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
# # The paper's CIFAR-100 row, on a Colab TPU or GPU
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/YOUR_ACCOUNT/sam_optax/blob/main/notebooks/tpu_cifar100.ipynb)
#
# This notebook trains ResNet-18 on CIFAR-100 with SGD, SAM and GSAM, each with a constant batch, a growing batch and a
# cosine learning rate. This is one row of the tables of Harada and Iiduka
# ([arXiv 2409.09984](https://arxiv.org/abs/2409.09984)). For SGD and SAM it adds two controls of the growing batch: a
# constant batch of 16, and a constant batch of 128 with as many updates as the growing one. The paper's runs have 200
# epochs; here a run has 30 by default. Everything is kept on your Drive. If a session ends, open the notebook again and
# run all cells: the study continues from the last save.
#
# **This notebook has not been run on a TPU or a GPU, nor in Colab or with Drive.** Its stored outputs are those of a
# rehearsal on two CPU cores with other settings: ResNet-8 with 84,000 parameters instead of ResNet-18, 512 of the
# 50,000 training images, and 5 epochs. They show what the cells print, and not what the row results in. We do not know
# how long a run takes on an accelerator; the notebook measures it before the runs start.
#
# In Colab choose *Runtime, Change runtime type*, and there a TPU or a GPU. Then run the cells in order.

# %% [markdown]
# ## Install
#
# A Colab machine has the version of JAX that fits its accelerator, so JAX and NumPy are not changed. The program needs
# TensorFlow to prepare the images; TPU machines have none, so the CPU version is installed there. In a clone of the
# repository, the cell installs nothing. The project is not published yet: set `REPOSITORY` to its address.

# %%
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

REPOSITORY = "https://github.com/YOUR_ACCOUNT/sam_optax"

above = (Path.cwd(), *Path.cwd().parents)
root = next((folder for folder in above if (folder / "experiments" / "train.py").is_file()), None)
if root is None:
    root = Path.cwd() / "sam_optax"
    if not root.exists():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(root)], check=True)
    installed = {each.name.lower(): each.version for each in distributions()}
    kept = [f"{name}=={version}" for name, version in installed.items() if name.startswith(("jax", "numpy", "libtpu"))]
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["experiments"]
    if "tensorflow" in installed:
        extra = [each for each in extra if not each.startswith(("tensorflow>", "tensorflow-cpu"))]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(root), *extra, *kept], check=True)

# %% [markdown]
# If pip cannot find versions that fit together, the machine's JAX is older than 0.10, which the library needs. Choose a
# newer runtime version in the same menu.

# %%
import re
import signal

from IPython.display import Image, Markdown, display

# %% [markdown]
# ## Settings
#
# - `EPOCHS` is the number of epochs of each run, a multiple of 5. The paper's runs have 200.
# - `SEEDS`: no difference is called a result with fewer than three seeds.
# - `TIME_LIMIT` is the time after which the study is saved and stops, for example `25m` or `3h`.
# - `JOBS` is the number of runs at the same time. On a GPU, three runs share the card. On a TPU, only one program at a
#   time can use the device, so `JOBS` is 1.
# - `OUTPUT` is the folder of the runs. None is a folder on your Drive in Colab, and `runs/tpu_cifar100` elsewhere.

# %% tags=["parameters"]
EPOCHS = 30
SEEDS = [0]
TIME_LIMIT = "3h"
JOBS = 1
OUTPUT = None
DATA = []  # ["--data-dir", folder] names a folder of prepared images; the default is a folder on the machine's own disk
MORE = []  # further options of experiments.reproduce, for example ["--methods", "sgd", "sam"]
TIMED_IMAGES = 128

# %% [markdown]
# ## The accelerator
#
# Everything is computed by other programs. Only one program at a time can use a TPU, so the notebook itself does not
# use it.


# %%
def python(*words):
    """Returns what a Python program of the repository prints."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=root, env=PLAIN, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def show(printed):
    """Displays what a program printed, with its tables as tables."""
    shown, columns = [], 0
    for line in map(str.strip, printed.splitlines()):
        cells = re.split(r" {2,}", line)
        if set(line) == {"─"}:
            shown.append("| --- |" + " ---: |" * (columns - 1))
        else:
            columns = len(cells)
            shown.append(f"| {' | '.join(cells)} |" if columns > 1 else line)
    display(Markdown("\n".join(shown)))


PLAIN = os.environ | {"TTY_COMPATIBLE": "0", "COLUMNS": "180", "PYTHONUNBUFFERED": "1"}  # no progress bars and colours
program = "import jax; print(jax.__version__, jax.default_backend(), jax.local_device_count())"
version, platform, count = python("-c", program).split()[-3:]
print(f"JAX {version}, {count} device(s), platform {platform}")
if platform == "cpu":
    print("No accelerator: choose a TPU or a GPU in Runtime, Change runtime type. On a CPU the row would take weeks.")

# %% [markdown]
# ## Your Drive
#
# Colab asks for permission. The row needs a few hundred megabytes: a run keeps its last two saves until it is complete,
# and then its trained network.

# %%
if OUTPUT is None and "google.colab" in sys.modules:
    from google.colab import drive

    drive.mount("/content/drive")
    OUTPUT = "/content/drive/MyDrive/sam_optax/tpu_cifar100"
output = root / (OUTPUT or "runs/tpu_cifar100")
output.mkdir(parents=True, exist_ok=True)
print("The runs are kept in", output)

# %% [markdown]
# ## How long will it take?
#
# The program lists the runs with their batch plans, before it trains anything.

# %%
row = ["-m", "experiments.reproduce", "--config", "cifar100_resnet18", "--epochs", EPOCHS, "--seeds", *SEEDS, *MORE]
planned = python(*row, "--dry-run")
show(planned)

# %% [markdown]
# It also times a few steps of each method on random images of the right shape, and prints the hours that the runs take
# on one device of this machine. The time per image is assumed to be the same at all batch sizes, which is too
# optimistic for a batch of 16. This output is not stored, because it depends on the machine.

# %% tags=["durations"]
show(python(*row, "--dry-run", "--time-steps-of", TIMED_IMAGES).removeprefix(planned))

# %% [markdown]
# ## The row
#
# - The runs are executed in the order of the table above, and each is recorded in `runs.jsonl` when it is complete.
# - After `TIME_LIMIT`, or if you stop the cell, the runs in progress are saved. Run the cell again to continue. A
#   continued run has the same result as one that was never stopped.
# - The sharpness of each run is measured over 1,024 training images, at the paper's radius and at a radius of the same
#   length for networks of every size.
# - The first run downloads CIFAR-100 and prepares it, which takes a few minutes.

# %%
TIME_HAS_PASSED = 75  # the exit code of a study that can be continued

command = [sys.executable, *row, "--output", output, "--finished", output / "runs.jsonl"]
command += ["--time-limit", TIME_LIMIT, "--jobs", JOBS, *DATA]
before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping the cell is for the notebook, which ends the program
running = subprocess.Popen(
    list(map(str, command)), cwd=root, env=PLAIN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
)
signal.signal(signal.SIGINT, before)
try:
    for line in running.stdout:
        print(line, end="")
finally:
    running.terminate()  # the program saves the runs in progress
    code = running.wait()
if code not in (0, TIME_HAS_PASSED):
    raise RuntimeError(f"The study ended with exit code {code}.")

# %% [markdown]
# ## The table
#
# Our figures, and the paper's for the same cells. From three seeds on, the report has differences with confidence
# intervals. A run of 30 epochs is a scaled-down run: compare the signs of differences with the paper's, not the sizes.

# %%
python("-m", "experiments.report", output)
report = (output / "report" / "report.md").read_text(encoding="utf-8")
start = report.index("| test error")
display(Markdown(report[start : report.index("\n\n", start)]))

# %%
for picture in sorted((output / "report" / "pictures").rglob("test_error.png")):
    display(Image(picture, width=800))

# %% [markdown]
# In the same number of epochs, the growing plan makes three times as many updates as a constant batch of 128. So a
# lower error of the growing batch alone does not show that growth helps. It has to be better than the best of the
# controls.
#
# The whole report is `report/report.html` in the folder of the runs, a single page with all pictures.

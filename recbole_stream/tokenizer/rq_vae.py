"""RQ-VAE: residual quantisation between a learnt encoder and decoder (Eq. 5-8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.kmeans import kmeans
from recbole_stream.tokenizer.letter import Letter, LetterOptions
from recbole_stream.tokenizer.residual import Quantised, residual_quantize, row_chunks

__all__ = ["RQVAE", "RQVAEOptions", "residual_quantize", "rq_vae", "rq_vae_loss", "train_rq_vae"]

_INIT_POINTS_PER_CODEWORD = 256


@dataclass(frozen=True)
class RQVAEOptions:
    """How the RQ-VAE is built and trained.

    Attributes:
        hidden_sizes: units of the encoder's hidden layers; the decoder mirrors them.
        latent_size: d of the codewords.
        epochs: passes over the items.
        learning_rate: of AdamW, at its peak (a tenth of the steps warm up, then a cosine to 0).
        batch_size: items a step.
        beta: weight of the commitment term in Eq. 6.
    """

    hidden_sizes: tuple[int, ...] = (512, 256)
    latent_size: int = 64
    epochs: int = 100
    learning_rate: float = 3e-3
    batch_size: int = 512
    beta: float = 0.25

    def __post_init__(self) -> None:
        sizes = [*self.hidden_sizes, self.latent_size, self.epochs, self.batch_size]
        if min(sizes) < 1 or self.learning_rate <= 0 or self.beta < 0:
            raise InputError(
                "RQ-VAE needs sizes, epochs and batches of at least 1, a positive rate and beta of at least 0: "
                f"got {self}."
            )


def rq_vae_loss(
    x: torch.Tensor, reconstruction: torch.Tensor, residuals: torch.Tensor, codewords: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eq. 5-7: `‖x − x̂‖² + Σ_d ‖sg[h_d] − e_{c_d}‖² + β ‖h_d − sg[e_{c_d}]‖²`, the mean over the batch.

    Args:
        x, reconstruction: `[B, D]`.
        residuals: h_1 .. h_m, `[B, m, d]`.
        codewords: e_{c_1} .. e_{c_m}, `[B, m, d]`.
        beta: weight of the commitment.

    Returns:
        (total, reconstruction term, quantisation term), scalars.
    """
    reconstruction_term = (x - reconstruction).square().sum(-1).mean()
    codebook_term = (residuals.detach() - codewords).square().sum((-1, -2)).mean()
    commitment_term = (residuals - codewords.detach()).square().sum((-1, -2)).mean()
    quantisation_term = codebook_term + beta * commitment_term
    return reconstruction_term + quantisation_term, reconstruction_term, quantisation_term


class RQVAE(nn.Module):
    """MLP encoder, m codebooks, MLP decoder.

    Args:
        input_size: D of the embeddings.
        levels: m.
        codebook_size: K.
        options: sizes of the layers and beta.
    """

    def __init__(self, input_size: int, levels: int, codebook_size: int, options: RQVAEOptions) -> None:
        super().__init__()
        sizes = [input_size, *options.hidden_sizes, options.latent_size]
        self.encoder = _mlp(sizes)
        self.codebooks = nn.Parameter(torch.randn(levels, codebook_size, options.latent_size))  # [m, K, d]
        self.decoder = _mlp(sizes[::-1])
        self.beta = options.beta

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`[B, D]` -> the loss terms of `rq_vae_loss` and the codes, int64 `[B, m]`."""
        return self.losses(x)[:4]

    def losses(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`forward`, and what the decoder reads: the sums of codewords `[B, d]`."""
        h = self.encoder(x)  # [B, d]
        codes, quantised, residuals = residual_quantize(h, self.codebooks)
        levels = torch.arange(len(self.codebooks), device=x.device)
        codewords = self.codebooks[levels, codes]  # [B, m, d]
        # Straight through: the decoder (Eq. 8) reads the codewords, its gradient reaches h as if it had read h.
        straight = h + (quantised - h).detach()
        return *rq_vae_loss(x, self.decoder(straight), residuals, codewords, self.beta), codes, straight

    @torch.no_grad()
    def initialise_codebooks(self, h: torch.Tensor, generator: torch.Generator) -> None:
        """Each level's codebook becomes the k-means of what the levels before left of h, `[n, d]`."""
        for level in range(len(self.codebooks)):
            codewords, codes = kmeans(h, self.codebooks.shape[1], generator)
            self.codebooks[level] = codewords
            h = h - codewords[codes]

    @torch.no_grad()
    def revive_dead_codes(self, used: torch.Tensor, h: torch.Tensor, generator: torch.Generator) -> None:
        """Codewords that no item chose move onto residuals of random items.

        Args:
            used: times each code was chosen since the last call, `[m, K]`.
            h: latents to draw from, `[n, d]`.
            generator: torch generator on the CPU.
        """
        residuals = residual_quantize(h, self.codebooks)[2]  # [n, m, d]
        for level in range(len(self.codebooks)):
            dead = torch.nonzero(used[level] == 0).squeeze(1)
            rows = torch.randint(len(h), (len(dead),), generator=generator).to(h.device)
            self.codebooks[level, dead] = residuals[rows, level]


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def rq_vae(
    embeddings: np.ndarray,
    levels: int,
    codebook_size: int,
    seed: int,
    options: RQVAEOptions,
    device: str = "cpu",
    show_progress: bool = True,
    collaborative: np.ndarray | None = None,
    letter: LetterOptions | None = None,
) -> Quantised:
    """Trains an RQ-VAE on the embeddings and quantises every item.

    Against collapse: inputs standardised per dimension, codebooks started by
    k-means on all items (a sample of 256 per codeword of a large catalogue),
    and codes that an epoch did not use revived. PyTorch's global random state
    is left as it was.

    Args:
        embeddings: float32 `[n, D]`.
        levels: m.
        codebook_size: K.
        seed: equal seeds give equal codes.
        options: architecture and training.
        device: where to train.
        show_progress: a progress bar over the epochs, with the loss.
        collaborative: vectors of the items for LETTER's losses, float32 `[n, d]`; None leaves these out.
        letter: weights of these losses; LETTER's own where None.

    Returns:
        the quantised items; `latents` are the encoder's outputs, h_1.
    """
    given = (embeddings, levels, codebook_size, seed, options, device, show_progress, collaborative, letter)
    model, mean, scale = train_rq_vae(*given)
    standardised = _standardiser(embeddings, mean, scale, device)
    return _quantise_all(model, len(embeddings), standardised, mean, scale, device)


def train_rq_vae(
    embeddings: np.ndarray,
    levels: int,
    codebook_size: int,
    seed: int,
    options: RQVAEOptions,
    device: str = "cpu",
    show_progress: bool = True,
    collaborative: np.ndarray | None = None,
    letter: LetterOptions | None = None,
) -> tuple[RQVAE, np.ndarray, np.ndarray]:
    """As :func:`rq_vae`, and returns the network, and mean and scale `[D]` by which its input is standardised."""
    n, input_size = embeddings.shape
    mean, scale = _mean_and_scale(embeddings)
    generator = torch.Generator().manual_seed(seed)

    standardised = _standardiser(embeddings, mean, scale, device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed seeds GPUs, too
        model = RQVAE(input_size, levels, codebook_size, options).to(device)
    sample = torch.randperm(n, generator=generator)[: _INIT_POINTS_PER_CODEWORD * codebook_size].numpy()
    with torch.no_grad():
        model.initialise_codebooks(model.encoder(standardised(sample)), generator)
    steps = options.epochs * -(-n // options.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    aligned = None
    if collaborative is not None:
        aligned = Letter(collaborative, letter or LetterOptions(), input_size, generator, device)
    bar = tqdm(range(options.epochs), desc="RQ-VAE", unit="epoch", disable=not show_progress)
    for epoch in bar:
        used = torch.zeros(levels, codebook_size, dtype=torch.int64, device=device)
        loss_sum = torch.zeros((), device=device)
        if aligned is not None:
            aligned.cluster(model.codebooks)
        for rows in torch.randperm(n, generator=generator).split(options.batch_size):
            loss, _, _, codes, quantised = model.losses(standardised(rows.numpy()))
            if aligned is not None:
                loss = loss + aligned.loss(rows.to(device), quantised, codes, model.codebooks)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            used += nn.functional.one_hot(codes, codebook_size).sum(0)
            loss_sum += loss.detach() * len(rows)
        if epoch + 1 < options.epochs:  # what is revived last would never be trained
            with torch.no_grad():
                model.revive_dead_codes(used, model.encoder(standardised(sample)), generator)
        bar.set_postfix(loss=f"{loss_sum.item() / n:.2f}", dead=int((used == 0).sum()))
    return model.eval(), mean, scale


def _standardiser(
    embeddings: np.ndarray, mean: np.ndarray, scale: np.ndarray, device: str
) -> Callable[[np.ndarray | slice], torch.Tensor]:
    """Gives rows of the embeddings as the network reads them, on the device."""
    return lambda rows: torch.from_numpy((embeddings[rows] - mean) / scale).to(device)


@torch.no_grad()
def _quantise_all(model: RQVAE, n: int, standardised, mean: np.ndarray, scale: np.ndarray, device: str) -> Quantised:
    levels, _, latent_size = model.codebooks.shape
    codes = np.empty((n, levels), dtype=np.int64)
    latents = np.empty((n, latent_size), dtype=np.float32)
    for chunk in row_chunks(n):
        h = model.encoder(standardised(chunk))
        latents[chunk] = h.cpu().numpy()
        codes[chunk] = residual_quantize(h, model.codebooks)[0].cpu().numpy()

    @torch.no_grad()
    def decode(quantised: np.ndarray) -> np.ndarray:
        return model.decoder(torch.from_numpy(quantised).to(device)).cpu().numpy() * scale + mean

    return Quantised(codes, latents, list(model.codebooks.cpu().numpy()), decode)


def _mean_and_scale(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each dimension, `[D]`, chunk by chunk; a constant dimension has scale 1."""
    n = len(embeddings)
    mean = sum(embeddings[rows].sum(0, dtype=np.float64) for rows in row_chunks(n)) / n
    variance = sum(np.square(embeddings[rows] - mean).sum(0) for rows in row_chunks(n)) / n
    scale = np.sqrt(variance)
    scale[scale < 1e-6] = 1.0
    return mean.astype(np.float32), scale.astype(np.float32)

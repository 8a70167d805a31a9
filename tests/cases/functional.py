"""Calls of torch's functions, each with a point full of zeros and ties: one table, hence a long file."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Call = tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]

GENERATOR = torch.Generator().manual_seed(0)


def integers(*shape: int) -> torch.Tensor:
    """Draw a point with many zeros and ties."""
    return torch.randint(-2, 3, shape, generator=GENERATOR).double()


POINT = integers(3, 4)
OTHER = integers(3, 4)
LABELS = torch.tensor([0, 3, 1])
SIGNS = torch.tensor([[1.0, -1, 1, 1]] * 3).double()
SHARES = torch.rand(3, 4, generator=GENERATOR).double()
ACTIVATIONS = (
    "relu relu6 elu selu celu leaky_relu hardtanh hardswish hardsigmoid hardshrink softshrink softsign softplus gelu silu "
    "mish tanhshrink logsigmoid sigmoid tanh"
).split()
IN_PLACE = "relu relu6 elu selu celu leaky_relu hardtanh hardswish hardsigmoid silu mish".split()
POOLS = "max_pool avg_pool adaptive_max_pool adaptive_avg_pool lp_pool".split()


def of(name: str, *args: object, **kwargs: object) -> Callable[[torch.Tensor], torch.Tensor]:
    """Name a function of torch.nn.functional with fixed arguments."""
    return lambda x: getattr(F, name)(x, *args, **kwargs)


def in_place(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Name an activation that writes over a copy of its operand."""
    return lambda x: getattr(F, name)(x * 1, inplace=True)


def pools() -> dict[str, Call]:
    """List the pooling functions over one, two and three axes."""
    table: dict[str, Call] = {}
    for d, image in ((1, integers(1, 2, 8)), (2, integers(1, 2, 6, 6)), (3, integers(1, 2, 4, 4, 4))):
        for name in POOLS:
            args = (2.0, 2) if name == "lp_pool" else (2,)
            table[f"{name}{d}d"] = of(f"{name}{d}d", *args), image.abs() + 1 if name == "lp_pool" else image
        pool = f"max_pool{d}d"
        table[f"{pool} padded"] = of(pool, 3, 2, 1), image
        table[f"{pool} dilated"] = of(pool, 2, 1, 0, 2), image
        table[f"{pool} ceil"] = of(pool, 3, 2, 0, 1, True), image
        table[f"{pool} unbatched"] = of(pool, 2), image[0]
        table[f"{pool} with indices"] = (lambda x, n=pool: getattr(F, n)(x, 2, return_indices=True)[0]), image
        table[f"max_unpool{d}d"] = (
            (lambda x, n=pool, m=f"max_unpool{d}d": getattr(F, m)(*getattr(F, n)(x, 2, return_indices=True), 2)),
            image,
        )
    flat, deep = integers(1, 2, 6, 6), integers(1, 2, 4, 4, 4)
    half = torch.full((1, 2, 2), 0.5).double()
    table["fractional_max_pool2d"] = of("fractional_max_pool2d", 2, output_size=3, _random_samples=half), flat
    half = torch.full((1, 2, 3), 0.5).double()
    table["fractional_max_pool3d"] = of("fractional_max_pool3d", 2, output_size=2, _random_samples=half), deep
    return table


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {name: of(name) for name in ACTIVATIONS}
FUNCTIONS |= {f"{name} in place": in_place(name) for name in IN_PLACE}
FUNCTIONS["threshold"] = lambda x: F.threshold(x, 0.0, 0.0)
FUNCTIONS |= dict(
    rrelu=lambda x: F.rrelu(x),
    prelu=lambda x: F.prelu(x[None], x.flatten()[:3]),
    prelu1=lambda x: F.prelu(x, x.flatten()[:1] * 0 + 0.25),
    elu2=lambda x: F.elu(x, 2.0),
    celu2=lambda x: F.celu(x, 2.0),
    threshold2=lambda x: F.threshold(x, 0.5, 0.5),
    glu=lambda x: F.glu(x, 1),
    softmax=lambda x: F.softmax(x, 1),
    softmin=lambda x: F.softmin(x, 1),
    log_softmax=lambda x: F.log_softmax(x, 1),
    hardtanh2=lambda x: F.hardtanh(x, -1, 2),
    normalize=lambda x: F.normalize(x, dim=1),
    normalize1=lambda x: F.normalize(x, p=1, dim=1),
    layer_norm=lambda x: F.layer_norm(x, (4,)),
    batch_norm=lambda x: F.batch_norm(x, None, None, training=True),
    batch_norm_eval=lambda x: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double()),
    group_norm=lambda x: F.group_norm(x, 2),
    instance_norm=lambda x: F.instance_norm(x[None]),
    rms_norm=lambda x: F.rms_norm(x, (4,)),
    lrn=lambda x: F.local_response_norm(x[None], 2),
)
FUNCTIONS |= dict(
    l1_loss=lambda x: F.l1_loss(x, OTHER),
    mse_loss=lambda x: F.mse_loss(x, OTHER),
    smooth_l1=lambda x: F.smooth_l1_loss(x, OTHER),
    smooth_l1_0=lambda x: F.smooth_l1_loss(x, OTHER, beta=0.0),
    huber=lambda x: F.huber_loss(x, OTHER),
    cross_entropy=lambda x: F.cross_entropy(x, LABELS),
    ce_smooth=lambda x: F.cross_entropy(x, LABELS, label_smoothing=0.1),
    nll=lambda x: F.nll_loss(F.log_softmax(x, 1), LABELS),
    kl=lambda x: F.kl_div(F.log_softmax(x, 1), SHARES, reduction="batchmean"),
    bce=lambda x: F.binary_cross_entropy(torch.sigmoid(x), SHARES),
    bcel=lambda x: F.binary_cross_entropy_with_logits(x, SHARES),
    hinge=lambda x: F.hinge_embedding_loss(x, SIGNS),
    mrl=lambda x: F.margin_ranking_loss(x, OTHER, SIGNS),
    mml=lambda x: F.multi_margin_loss(x, LABELS),
    mml2=lambda x: F.multi_margin_loss(x, LABELS, p=2),
    mlml=lambda x: F.multilabel_margin_loss(x, torch.tensor([[0, 2, -1, -1], [1, -1, -1, -1], [3, 0, 1, -1]])),
    mlsm=lambda x: F.multilabel_soft_margin_loss(x, (SIGNS > 0).double()),
    soft_margin=lambda x: F.soft_margin_loss(x, SIGNS),
    triplet=lambda x: F.triplet_margin_loss(x, OTHER, OTHER.flip(0)),
    triplet_swap=lambda x: F.triplet_margin_loss(x, OTHER, OTHER.flip(0), swap=True),
    tmwd=lambda x: F.triplet_margin_with_distance_loss(x, OTHER, OTHER.flip(0)),
    cos_emb=lambda x: F.cosine_embedding_loss(x, OTHER + 0.1, torch.tensor([1, -1, -1])),
    cosine=lambda x: F.cosine_similarity(x, OTHER, 1),
    pairwise=lambda x: F.pairwise_distance(x, OTHER),
    pdist=lambda x: F.pdist(x),
    poisson=lambda x: F.poisson_nll_loss(x, OTHER.abs()),
    gnll=lambda x: F.gaussian_nll_loss(x, OTHER, x * x),
    ctc=lambda x: F.ctc_loss(F.log_softmax(x.reshape(3, 1, 4), 2), torch.tensor([[1, 2]]), (3,), (2,)),
    embedding=lambda x: F.embedding(LABELS, x.T),
    embedding_bag=lambda x: F.embedding_bag(LABELS[None], x.T),
    grid=lambda x: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2).double() + 0.1, align_corners=False),
    interp=lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
    interpn=lambda x: F.interpolate(x[None, None], scale_factor=2),
    interpc=lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bicubic"),
    pad=lambda x: F.pad(x[None, None], (1, 1, 1, 1), mode="reflect"),
    padc=lambda x: F.pad(x, (1, 1)),
    padr=lambda x: F.pad(x[None, None], (1, 1, 1, 1), mode="replicate"),
    padci=lambda x: F.pad(x[None, None], (1, 1, 1, 1), mode="circular"),
    unfold=lambda x: F.unfold(x[None, None], 2),
    fold=lambda x: F.fold(x.reshape(1, 12, 1), (2, 2), (2, 2)),
    ps=lambda x: F.pixel_shuffle(x.reshape(1, 4, 1, 3), 2),
    pu=lambda x: F.pixel_unshuffle(x.reshape(1, 1, 2, 6), 2),
    cs=lambda x: F.channel_shuffle(x.reshape(1, 4, 1, 3), 2),
    oneh=lambda x: F.one_hot(LABELS).double() @ x[:, :].T.repeat(1, 1)[:4],
    bilinear=lambda x: F.bilinear(x, x, torch.ones(2, 4, 4).double()),
    sdpa=lambda x: F.scaled_dot_product_attention(x, x, x),
    linear=lambda x: F.linear(x, x),
    conv=lambda x: F.conv1d(x[None], torch.ones(2, 3, 2).double()),
    convt=lambda x: F.conv_transpose1d(x[None], torch.ones(3, 2, 2).double()),
    affine=lambda x: F.affine_grid(x[:2, :3][None], (1, 1, 2, 2)),
    gumbel_eval=lambda x: F.dropout(x, 0.5, False),
)

for p in (1, 2, 3, 0.5, float("inf"), -float("inf"), 1.5):
    FUNCTIONS[f"vector_norm {p}"] = lambda x, p=p: torch.linalg.vector_norm(x, p, dim=1)
    FUNCTIONS[f"norm {p}"] = lambda x, p=p: x.norm(p, dim=(0, 1))
    if p >= 1:
        FUNCTIONS[f"cdist {p}"] = lambda x, p=p: torch.cdist(x, x[:2], p)
        FUNCTIONS[f"pdist {p}"] = lambda x, p=p: F.pdist(x, p)
        FUNCTIONS[f"dist {p}"] = lambda x, p=p: torch.dist(x[0], x[1], p)
FUNCTIONS |= dict(
    fro=lambda x: torch.linalg.matrix_norm(x),
    fro2=lambda x: torch.norm(x),
    ln=lambda x: torch.linalg.norm(x),
    mn1=lambda x: torch.linalg.matrix_norm(x, 1),
    mninf=lambda x: torch.linalg.matrix_norm(x, float("inf")),
    std=lambda x: x.std(1),
    std0=lambda x: x.std(1, correction=0),
    stdall=lambda x: x.std(),
    stdmean=lambda x: torch.std_mean(x, 1)[0],
    var=lambda x: x.var(1),
    hypot=lambda x: torch.hypot(x, x.flip(0)),
    mx=lambda x: x.max(),
    mx1=lambda x: x.max(1).values,
    mn=lambda x: x.min(0)[0],
    amax=lambda x: x.amax((0, 1)),
    amin=lambda x: x.amin(1, True),
    aminmax=lambda x: sum(torch.aminmax(x, dim=1)),
    cummax=lambda x: x.cummax(1)[0],
    cummin=lambda x: x.cummin(0)[0],
    med=lambda x: x.median(),
    med1=lambda x: x.median(1)[0],
    nanmed=lambda x: x.nanmedian(),
    kth=lambda x: x.kthvalue(2, 1)[0],
    sort=lambda x: x.sort(1)[0],
    sortd=lambda x: x.sort(0, descending=True)[0],
    topk=lambda x: x.topk(2, 1)[0],
    topks=lambda x: x.topk(2, 1, largest=False)[0],
    topku=lambda x: x.topk(3, 1, sorted=False)[0],
    msort=lambda x: x.msort(),
    quant=lambda x: x.quantile(0.3, dim=1),
    quant2=lambda x: x.nanquantile(0.5),
    clampT=lambda x: x.clamp(x.flip(0), x.flip(1)),
    clampt=lambda x: x.clamp(min=x.flip(0)),
    clampm=lambda x: x.clamp(max=x.flip(0)),
    clampbad=lambda x: x.clamp(1, -1),
    mf=lambda x: x.masked_fill(x > 0, 1.0),
    mf2=lambda x: x.masked_fill(x > 0, x.sum()),
    wh=lambda x: torch.where(x > 0, 1.0, x),
    wh2=lambda x: torch.where(x > 0, x, 0.0),
    pw=lambda x: (x.abs() + 1) ** x,
    pw2=lambda x: x**2,
    pw3=lambda x: x.abs() ** 1.5,
    pw4=lambda x: 2**x,
    rs=lambda x: (x * x + 1).rsqrt(),
    fmaxx=lambda x: torch.fmax(x, x.flip(0)),
    heav=lambda x: torch.heaviside(x.detach(), torch.ones(()).double()) * x,
    lse=lambda x: x.logsumexp(1),
    cp=lambda x: x.cumprod(1),
    prod=lambda x: x.prod(1),
    lcse=lambda x: x.logcumsumexp(1),
    nan2=lambda x: torch.nan_to_num(x),
    argm=lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    xlogy=lambda x: torch.xlogy(x, x.abs() + 1),
    fl=lambda x: x.floor() * x,
    rem=lambda x: torch.remainder(x, 1.5),
    frac=lambda x: x.frac(),
    sgn=lambda x: x.sign() * x,
    idx=lambda x: x[x > 0],
    einsum=lambda x: torch.einsum("ij,kj->ik", x, x),
    mean=lambda x: x.mean(1),
    lerp=lambda x: torch.lerp(x, x * 2, 0.3),
    emb=lambda x: F.embedding(LABELS, x.T, max_norm=None),
    roll=lambda x: x.roll(1),
    rot=lambda x: x.rot90(),
    ten=lambda x: torch.tensordot(x, x, ([1], [1])),
    bd=lambda x: torch.block_diag(x, x),
    cr=lambda x: torch.linalg.cross(x[:, :3], x[:, 1:]),
    inv=lambda x: torch.linalg.inv(x @ x.T + 5 * torch.eye(3)),
    det=lambda x: torch.linalg.det(x @ x.T + 5 * torch.eye(3)),
    solve=lambda x: torch.linalg.solve(x @ x.T + 5 * torch.eye(3).double(), x),
    chol=lambda x: torch.linalg.cholesky(x @ x.T + 5 * torch.eye(3).double()),
    trapz=lambda x: torch.trapezoid(x),
    diff=lambda x: x.diff(),
    stk=lambda x: torch.vstack([x, x]),
    rep=lambda x: x.repeat_interleave(2, 0),
)

CALLS: dict[str, Call] = {**pools(), **{name: (f, POINT) for name, f in FUNCTIONS.items()}}
"""The table: name -> (function, point)."""

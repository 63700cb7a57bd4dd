"""SSD (Liu et al. 2016): a backbone, extra levels, an optional neck, and a head on every level."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.targets import Targets
from bench.detector.backbones import Backbone
from bench.detector.levels import extra_level, level_norm
from bench.detector.loss import Loss, multibox_loss
from bench.detector.neck import build_neck
from bench.detector.postprocess import BatchDetections, detect
from bench.detector.priors import prior_boxes
from bench.detector.transfer import take_over
from bench.errors import UserError
from bench.spec import DetectorSpec


class SSD(nn.Module):
    """The detector of a specification, with initial weights that depend on the seed alone.

    Each new layer draws its weights from its own generator, seeded by the seed and the layer's name. So arms that share
    a layer share its initial weights, whatever else differs.

    taken_over: names of the tensors beside the backbone's that came with trained weights.
    """

    priors: Tensor

    def __init__(self, spec: DetectorSpec, *, seed: int) -> None:
        super().__init__()
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed CUDA too
            self.backbone = Backbone(spec.backbone, spec.weights)
        channels = list(self.backbone.channels)
        self.norms = nn.ModuleList(
            level_norm(count, size) for count, size in zip(channels, spec.level_norms, strict=True)
        )
        self.extras = nn.ModuleList()
        for extra in spec.extras:
            self.extras.append(extra_level(channels[-1], extra))
            channels.append(extra.channels)
        self.neck = build_neck(spec.neck, channels) if spec.neck else None
        # The channels of each level that the heads of the baseline read; none if the neck replaces the maps
        kept = channels if self.neck is None or hasattr(self.neck, "appended") else None
        if self.neck is not None:
            channels = cast(list[int], self.neck.channels)
        shapes = [len(level) for level in spec.priors]
        self.class_heads = nn.ModuleList(
            nn.Conv2d(count, n * (spec.classes + 1), 3, padding=1) for count, n in zip(channels, shapes, strict=True)
        )
        self.box_heads = nn.ModuleList(
            nn.Conv2d(count, n * 4, 3, padding=1) for count, n in zip(channels, shapes, strict=True)
        )
        self.register_buffer("priors", prior_boxes(spec), persistent=False)
        self._initialise(seed, channels if kept is None else kept)
        self.taken_over: tuple[str, ...] = ()
        if spec.class_outputs:
            self.taken_over = take_over(self, spec.weights, spec.class_outputs, heads=kept is not None)
        self._check_sides()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) RGB of 0 to 255 to logits (B, P, C + 1) and box offsets (B, P, 4), both float32."""
        maps = self.feature_maps(images)
        logits, offsets = [], []
        heads = zip(cast(Iterable[nn.Conv2d], self.class_heads), cast(Iterable[nn.Conv2d], self.box_heads), strict=True)
        for level, (class_head, box_head) in zip(maps, heads, strict=True):
            # One convolution for both heads reads the map once
            both = F.conv2d(
                level,
                torch.cat((class_head.weight, box_head.weight)),
                torch.cat((bias_of(class_head), bias_of(box_head))),
                padding=1,
            ).permute(0, 2, 3, 1)
            cut = class_head.out_channels
            # Both parts are copied anyway, and the steps that follow are slower in bfloat16
            logits.append(both[..., :cut].float().reshape(len(images), -1, self.spec.classes + 1))
            offsets.append(both[..., cut:].float().reshape(len(images), -1, 4))
        return torch.cat(logits, dim=1), torch.cat(offsets, dim=1)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The maps that the heads read, finest first."""
        return self.levels(self.backbone(images))

    def levels(self, backbone_maps: Sequence[Tensor]) -> list[Tensor]:
        """All levels from the backbone's maps: normalised, with the extra levels, through the neck."""
        maps = [norm(level) for norm, level in zip(self.norms, backbone_maps, strict=True)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return list(self.neck(maps)) if self.neck is not None else list(maps)

    def loss(self, images: Tensor, targets: Targets, divisor: Tensor | None = None) -> Loss:
        """The multibox loss of a batch, or of a micro-batch if `divisor` is given (see `multibox_loss`)."""
        logits, offsets = self(images)
        return multibox_loss(self.spec, logits, offsets, priors=self.priors, targets=targets, divisor=divisor)

    def detect(self, images: Tensor) -> BatchDetections:
        """Final boxes of a batch."""
        logits, offsets = self(images)
        return detect(self.spec, logits, offsets, self.priors)

    def new_layers(self) -> list[nn.Module]:
        """All parts that start untrained on a pretrained backbone."""
        neck = [] if self.neck is None else [self.neck]
        return [*self.backbone.fresh.values(), self.norms, self.extras, *neck, self.class_heads, self.box_heads]

    def priors_fingerprint(self) -> str:
        """Hash of the priors, saved with the weights: these mean nothing with other priors."""
        return hashlib.sha256(self.priors.cpu().numpy().tobytes()).hexdigest()[:12]

    def _initialise(self, seed: int, channels: Sequence[int]) -> None:
        """Draw the weights of all new layers. channels: that each head reads at the start; others have weights of 0."""
        fresh = set(self.backbone.fresh.values())
        for name, layer in self.named_modules():
            if not isinstance(layer, nn.Conv2d) or (name.startswith("backbone.") and layer not in fresh):
                continue
            generator = torch.Generator().manual_seed(_seed_of(name, seed))
            is_head = name.startswith(("class_heads.", "box_heads."))
            read = channels[int(name.rsplit(".", 1)[1])] if is_head else layer.weight.shape[1]
            drawn = layer.weight.new_empty((len(layer.weight), read, *layer.kernel_size))
            if self.spec.initialisation == "caffe":
                bound = math.sqrt(3 / drawn[0].numel())  # its filler "xavier" divides by the fan-in
                nn.init.uniform_(drawn, -bound, bound, generator=generator)
            elif is_head:
                # RetinaNet's initialisation: first logits near zero for maps of any scale
                nn.init.normal_(drawn, std=0.01, generator=generator)
            else:
                nn.init.xavier_uniform_(drawn, generator=generator)
            with torch.no_grad():
                layer.weight.zero_()
                layer.weight[:, :read] = drawn
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.spec.initialisation == "caffe":
            return
        # Otherwise all ~9,000 priors start undecided between classes, although nearly all are background
        odds = (1 - self.spec.object_probability) / (self.spec.object_probability / self.spec.classes)
        for head in self.class_heads:
            with torch.no_grad():
                bias_of(head).view(-1, self.spec.classes + 1)[:, 0] = math.log(odds)

    def _check_sides(self) -> None:
        """Check that the maps have the sides that the priors are made for."""
        was_training = self.training
        self.eval()
        side = self.spec.size
        try:
            with torch.no_grad():
                sides = tuple(level.shape[-1] for level in self.feature_maps(torch.zeros(1, 3, side, side)))
        except (RuntimeError, AssertionError) as error:  # the network may want one size, or multiples of 32
            raise UserError(
                f"--backbone {self.spec.backbone}: does not accept {side} x {side} input ({error})"
            ) from error
        self.train(was_training)
        if sides != self.spec.feature_maps:
            raise UserError(
                f"--backbone {self.spec.backbone}: gives maps of sides {list(sides)} at {self.spec.size} pixels; "
                f"the priors are made for {list(self.spec.feature_maps)}"
            )


def bias_of(head: nn.Module) -> Tensor:
    """The bias of a convolution that has one."""
    return cast(Tensor, head.bias)


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")

"""methods: sentences for a paper's methods section, of what a group's model was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import BY_HAND
from .layers import flatten
from .palette import MEMBERS, word_for
from .provenance import atomic_path

SRCT = (
    "Unsupervised Semantic Segmentation in Synchrotron Computed Tomography with Self-Correcting Pseudo Labels. "
    "The method of stages 1 to 3."
)
ET = "Li, C. et al. Toward few pixel annotations for 3D segmentation of material from electron tomography."
EM = "Spatial continuity for the segmentation of electron microscopy stacks (MPP and SCM). Poster."
MIXTURE = (
    "Dempster, A. P., Laird, N. M. & Rubin, D. B. Maximum likelihood from incomplete data via the EM algorithm. "
    "J. R. Stat. Soc. B 39, 1-38 (1977)."
)
CITATIONS = {
    "kmeans": "Lloyd, S. Least squares quantization in PCM. IEEE Trans. Inf. Theory 28, 129-137 (1982).",
    "multi_otsu": "Liao, P.-S., Chen, T.-S. & Chung, P.-C. A fast algorithm for multilevel thresholding. "
    "J. Inf. Sci. Eng. 17, 713-727 (2001).",
    "gmm": MIXTURE,
    "gmm_tied": MIXTURE,
    "forward_correction": "Patrini, G., Rozza, A., Menon, A. K., Nock, R. & Qu, L. Making deep neural networks robust "
    "to label noise: a loss correction approach. CVPR (2017).",
    "features": "Lloyd, S. Least squares quantization in PCM. IEEE Trans. Inf. Theory 28, 129-137 (1982).",
    "unet": "Ronneberger, O., Fischer, P. & Brox, T. U-Net: convolutional networks for biomedical image segmentation. "
    "MICCAI (2015).",
    "unet_plus_plus": "Zhou, Z. et al. UNet++: a nested U-Net architecture for medical image segmentation. "
    "DLMIA (2018).",
    "unet3_plus": "Huang, H. et al. UNet 3+: a full-scale connected UNet for medical image segmentation. "
    "ICASSP (2020).",
    "resunet": "Zhang, Z., Liu, Q. & Wang, Y. Road extraction by deep residual U-Net. "
    "IEEE Geosci. Remote Sens. Lett. 15, 749-753 (2018).",
    "resunet_plus_plus": "Jha, D. et al. ResUNet++: an advanced architecture for medical image segmentation. "
    "ISM (2019).",
    "attention_unet": "Oktay, O. et al. Attention U-Net: learning where to look for the pancreas. MIDL (2018).",
    "deeplabv3_plus": "Chen, L.-C. et al. Encoder-decoder with atrous separable convolution for semantic image "
    "segmentation. ECCV (2018).",
    "segformer": "Xie, E. et al. SegFormer: simple and efficient design for semantic segmentation with transformers. "
    "NeurIPS (2021).",
    "unet_3d": "Çiçek, Ö. et al. 3D U-Net: learning dense volumetric segmentation from sparse annotation. "
    "MICCAI (2016).",
    "label_smoothing": "Szegedy, C. et al. Rethinking the Inception architecture for computer vision. CVPR (2016).",
    "generalized_cross_entropy": "Zhang, Z. & Sabuncu, M. Generalized cross entropy loss for training deep neural "
    "networks with noisy labels. NeurIPS (2018).",
    "symmetric_cross_entropy": "Wang, Y. et al. Symmetric cross entropy for robust learning with noisy labels. "
    "ICCV (2019).",
    "soft_bootstrapping": "Reed, S. et al. Training deep neural networks on noisy labels with bootstrapping. "
    "ICLR workshop (2015).",
    "hard_bootstrapping": "Reed, S. et al. Training deep neural networks on noisy labels with bootstrapping. "
    "ICLR workshop (2015).",
    "focal": "Lin, T.-Y. et al. Focal loss for dense object detection. ICCV (2017).",
    "unbiased_teacher": "Liu, Y.-C. et al. Unbiased Teacher for semi-supervised object detection. ICLR (2021).",
    "blend": "Wortsman, M. et al. Robust fine-tuning of zero-shot models. CVPR (2022).",
    "adam": "Kingma, D. P. & Ba, J. Adam: a method for stochastic optimization. ICLR (2015).",
    "torch": "Paszke, A. et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS (2019).",
    "snakemake": "Mölder, F. et al. Sustainable data analysis with Snakemake. F1000Research 10, 33 (2021).",
}
NETWORKS = {
    "unet": "U-Net",
    "unet_plus_plus": "UNet++",
    "unet3_plus": "UNet 3+",
    "resunet": "ResUNet",
    "resunet_plus_plus": "ResUNet++",
    "attention_unet": "Attention U-Net",
    "deeplabv3_plus": "DeepLabv3+",
    "segformer": "SegFormer",
    "unet_3d": "3-D U-Net",
}
LABELERS = {
    "kmeans": "k-means",
    "multi_otsu": "multi-level Otsu thresholding",
    "gmm": "a Gaussian mixture",
    "gmm_tied": "a Gaussian mixture of one variance",
    "features": "k-means of features around each voxel",
}


def write_methods(
    path: str | Path, group: str, bundle: dict[str, Any], plan: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write the page (Markdown): data, sentences, class table, parameters, versions, what to cite.

    Parameters
    ----------
    path : path
    group : str
    bundle, plan : dict
        Content of `bundle.json` and `plan.json`.
    settings : dict
        Effective configuration of the group, by section; it holds no path.
    """
    cited: list[str] = []
    paragraphs = [sentence for sentence in sentences(bundle, plan, settings, cited) if sentence]
    lines = [
        f"# Methods: {group}",
        "",
        "What was done, in sentences to adapt; parameters and versions below are exact.",
        "",
    ]
    lines += [
        "\n\n".join(paragraphs),
        "",
        "## Scans",
        "",
        "| scan | voxels (z, y, x) | type | voxel size, µm (z, y, x) |",
    ]
    lines += ["|---|---|---|---|"]
    for scan in bundle["scans"]:
        size = " × ".join(f"{v:g}" for v in scan["voxel_size_um"]) if scan["voxel_size_um"] else "unknown"
        lines.append(f"| {scan['name']} | {' × '.join(map(str, scan['shape']))} | {scan['dtype']} | {size} |")
    members = MEMBERS[word_for(settings["label_source"])]
    lines += ["", "## Classes", "", f"| id | name | {members} |", "|---|---|---|"]
    for row in bundle["class_table"]:
        lines.append(f"| {row['id']} | {row['name']} | {', '.join(map(str, row['clusters']))} |")
    lines += ["", "## Parameters", "", "| key | value |", "|---|---|"]
    lines += [f"| `{key}` | {value} |" for key, value in sorted(flatten(settings))]
    lines += [
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in bundle["versions"].items()) + ".",
    ]
    lines += ["", "## References", ""] + [f"{number}. {text}" for number, text in enumerate(cited, start=1)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def sentences(bundle: dict[str, Any], plan: dict[str, Any], settings: dict[str, Any], cited: list[str]) -> list[str]:
    """Paragraphs of the methods section; what they cite is appended to `cited`, in order."""

    def cite(*keys: str) -> str:
        numbers = []
        for key in keys:
            text = {"srct": SRCT, "em": EM, "et": ET}.get(key) or CITATIONS.get(key)
            if text and text not in cited:
                cited.append(text)
            if text:
                numbers.append(str(cited.index(text) + 1))
        return f" [{', '.join(numbers)}]" if numbers else ""

    versions, labeler = bundle["versions"], settings["pseudo_label"]["labeler"]
    clipped, (low, high) = plan["clipped"], plan["range"]
    scans = "scan" if len(bundle["scans"]) == 1 else f"{len(bundle['scans'])} reference scans"
    found = [
        f"Volumes were segmented with beamseg {versions['beamseg']}, a workflow for Snakemake "
        f"{versions['snakemake']}{cite('snakemake')} and PyTorch {versions['torch']}{cite('torch')}, "
        f"by the method of{cite({'slices': 'em', 'pixels': 'et'}.get(settings['label_source'], 'srct'))}; "
        f"seed {settings['seed']}.",
        f"Grey values between {low:.6g} and {high:.6g} of the {scans} "
        f"({_percent(clipped['low'])} of the voxels in the field of view lay below, {_percent(clipped['high'])} above) "
        f"were mapped linearly to {plan.get('bits', 16)} bits.{_corrected(bundle['settings'].get('corrections'))}",
    ]
    n, source = settings["pseudo_label"]["n_clusters"], settings["label_source"]
    if source == "clusters":
        where = {"volume": "pooled over the scans", "slab": "per slab", "slice": "per slice"}
        found.append(
            f"Pseudo-labels of {n} clusters were taken by {LABELERS.get(labeler, labeler)}{cite(labeler)} of grey "
            f"levels {where.get(settings['pseudo_label']['scope'], '')}."
        )
    else:
        given = {"bundle": "The network had learned from labels given by hand"}
        found.append(f"{given.get(source, f'Labels to train on were given by hand ({source})')}, {n} classes.")
    found.append(_training(settings, cite))
    if settings["stage3"] != "none":
        found.append(_correction(bundle, settings, cite))
    overlap = settings["segment"]["overlap"]
    found.append(
        f"Volumes were segmented in tiles of {settings['train']['crop']} pixels that overlap by {_percent(overlap, 0)}"
        ", class probabilities averaged with Gaussian weights."
    )
    if settings["refine"]:
        found.append(_refinement(settings, cite))
    return found


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def _corrected(corrections: dict[str, Any] | None) -> str:
    if not corrections:
        return ""
    names = {"shading": "shading", "rings": "rings", "denoise": "noise"}
    done = [f"{what} ({corrections[key]})" for key, what in names.items() if corrections.get(key, "none") != "none"]
    return f" Before, {', '.join(done)} were corrected." if done else ""


def _slices(count: int) -> str:
    return f"{count} slice{'s' * (count != 1)}"


def _length(section: dict[str, Any]) -> str:
    return f"{section['steps']} steps" if section.get("steps") else f"{section.get('epochs')} epochs"


def _warped(warp: dict[str, Any]) -> str:
    if not warp["scale"]:
        return ""
    share = _percent(warp["scale"], 0)
    return f" and random piecewise affine deformations (standard deviation at the nodes up to {share} of a crop)"


def _unshared(train: dict[str, Any]) -> str:
    if not train["partial_volume_px"]:
        return ""
    edge = 2 * train["partial_volume_px"] + 1
    return (
        f"; voxels of a cluster that lies in grey between two others, each on a tenth of the {edge} × {edge} pixels "
        "around, were left out"
    )


def _forward_corrected(settings: dict[str, Any], cite: Any) -> str:
    clusters = settings["pseudo_label"]
    known = clusters["labeler"] != "features" and clusters["scope"] == "volume"
    if settings["label_source"] != "clusters" or not settings["train"]["forward_correction"] or not known:
        return ""
    return (
        f"; the loss was forward-corrected{cite('forward_correction')} by the transition matrix from phases to "
        "clusters that a Gaussian mixture on the histogram implies, brought in over the first half of the training, "
        "and from then on by the one measured between the network's own predictions and their labels"
    )


def _least(train: dict[str, Any]) -> str:
    if not train.get("best_of"):
        return ""
    return f"; the weights of the least training loss of the first {train['best_of']:g} epochs were kept"


def _training(settings: dict[str, Any], cite: Any) -> str:
    model, train = settings["model"], settings["train"]
    plain = model["name"].removesuffix("_noskip")
    loss = (
        "cross entropy with label smoothing" if train["loss"] == "label_smoothing" else train["loss"].replace("_", " ")
    )
    stack = f"stacks of {model['n_slices']} adjacent slices" if model["n_slices"] > 1 else "single slices"
    kind = NETWORKS.get(plain, plain) + (" without skip connections" if plain != model["name"] else "")
    contrast = train["contrastive"]
    if train["objective"] == "contrastive":
        return (
            f"Stage 2: a network ({kind}{cite(plain)}) was trained for {_length(train)} on batches of {train['batch']} "
            f"crops of {train['crop']} × {train['crop']} pixels from {stack} to embed each pixel in "
            f"{contrast['embedding']} dimensions, with the contrastive losses ({', '.join(contrast['losses'])}) "
            f"of{cite('et')} on {contrast['pixels']} pixels and Adam{cite('adam')} (learning rate {train['lr']:g}); a "
            f"1×1 convolution on the frozen embedding was then trained to classify the labelled pixels."
        )
    return (
        f"Stage 2: a network ({kind}{cite(plain)}) was trained for {_length(train)} on batches "
        f"of {train['batch']} crops of {train['crop']} × {train['crop']} pixels from {stack}, with the loss "
        f"{loss}{cite(train['loss'])} and Adam{cite('adam')} (learning rate "
        f"{train['lr']:g}), under rotations by 90° and flips{_warped(train['piecewise_affine'])}{_unshared(train)}"
        f"{_forward_corrected(settings, cite)}{_least(train)}."
    )


def _correction(bundle: dict[str, Any], settings: dict[str, Any], cite: Any) -> str:
    section = settings["self_correct"]
    parts = [f"moving average of the student's weights (factor {section['ema']:g})"]
    if section.get("anchor"):
        parts.append(f"whose predictions are drawn towards stage 2's with weight {section['anchor']:g}")
    if settings["label_source"] in BY_HAND:
        parts.append(f"and {_percent(section['labelled_share'], 0)} of each batch are of labelled slices")
    outcome = (
        "Its result was used"
        if bundle["stage"] == "stage3"
        else "It failed the watch against lost classes, and stage 2 was used in its place"
    )
    share = section["blend"]
    way = f"; the weights used lie {_percent(share, 0)} of the way from stage 2's to the teacher's{cite('blend')}"
    between = way if bundle["stage"] == "stage3" and share < 1 else ""
    return (
        f"Stage 3: self-correction without the pseudo-labels ({settings['stage3'].replace('_', ' ')}"
        f"{cite('unbiased_teacher')}), {_length(section)} on batches of {section['batch']}, learning rate "
        f"{section['lr']:g}; the teacher is the {', '.join(parts)}{between}. "
        f"{outcome} ({bundle['reason']})."
    )


def _refinement(settings: dict[str, Any], cite: Any) -> str:
    texts = []
    if "mpp" in settings["refine"]:
        reach = settings["refine_mpp"]["anchor_reach"] if settings["label_source"] == "slices" else 0
        texts.append(
            f"morphological post-processing along z over {_slices(settings['refine_mpp']['support'])} to each side"
            + (f", after sweeps over {_slices(reach)} from the labelled ones" if reach else "")
        )
    if "scm" in settings["refine"]:
        section = settings["refine_scm"]
        texts.append(
            f"a spatial-continuity model of {section['adjacent_slices']} adjacent masks, trained for "
            f"{section['steps']} steps on the former's output"
        )
    return f"Labels were refined by {' and '.join(texts)}{cite('em')}."

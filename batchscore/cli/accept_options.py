"""Options of scoring that decide which predictions are accepted without a look."""

from __future__ import annotations

from batchscore.cli.declaring import LocalPath, option

ACCEPT_OPTIONS = (
    option(
        "--accept",
        metavar="precision=X",
        help="Decide, too: a column `decision`, accept or review, so that of the accepted rows of each label a share of at least X is "
        "right. The thresholds are chosen on the bundle's held-out rows; where labels come along, the promise is tested again.",
    ),
    option(
        "--accept-on",
        type=LocalPath(),
        metavar="RUN_DIR",
        help="Choose them on this finished, labelled run of the same model instead; it must not have been trained on these rows.",
    ),
    option(
        "--accept-confidence",
        default="95%",
        show_default=True,
        metavar="X",
        help="The probability that what --accept promises holds, over the draw of the rows that the thresholds are chosen on.",
    ),
)

"""Tables 2 and 4 to 6 on the paper's own split: what its rows of SimCLIC can be compared with.

The paper scores SimCLIC on a validation set, the other files here on the test images on which the 13 baselines were scored. A
verdict on the paper's own numbers needs this file: the makers' train and val where they define both, else 80 and 20 % of all
images, chosen and reported on the same images. As many pre-trainings again as Tables 2 and 4 to 6 ask for.

    simclic run benchmarks/as_printed.py --data DIR
"""

from pathlib import Path

from simclic import load

EXHIBITS = [load(Path(__file__).parent / f"table{n}.py").exhibits[0].moved(split="paper") for n in (2, 4, 5, 6)]

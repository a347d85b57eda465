"""Train the dense network at length and write its weights in half precision.

``python -m prunelens.dense PROFILE FILE [--set key.path=value ...]`` trains with the profile's ``network.scratch``;
beside FILE it writes FILE.json: profile, accuracy of every epoch, versions. The committed
data/googlenet_embedded.safetensors was made by::

    python -m prunelens.dense quick data/googlenet_embedded.safetensors --set data.train_images=6000
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from prunelens.artefacts import atomic, provenance, write_text
from prunelens.study import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("file", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", dest="overrides")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    study = Study(arguments.profile, [*arguments.overrides, "network.weights=scratch"], arguments.device)
    network = study.dense
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    with atomic(arguments.file) as temporary:
        save_file(halved, temporary)
    record = {
        "profile": study.profile.model_dump(),
        "epochs": json.loads(study.scratch_epochs.to_json(orient="records")),
        **provenance(),
    }
    write_text(arguments.file.with_name(arguments.file.name + ".json"), json.dumps(record, indent=2))
    print(study.scratch_epochs.to_string())


if __name__ == "__main__":
    main()

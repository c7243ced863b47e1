# docker build -t ntk_tf .                                    # for CPUs
# docker build -t ntk_tf --build-arg EXTRAS=slurm,cuda .      # for NVIDIA GPUs, of which the host has the driver
# mkdir -p work && docker run --rm [--gpus all] -v "$PWD/work:/work" ntk_tf --dataset=digits --linearized
#
# The folder /work keeps runs/. Files there belong to root unless docker run has --user "$(id -u):$(id -g)".
# With GPUs docker run needs --gpus all, and the host NVIDIA's container toolkit.
# Built and run for CPUs on Debian 12 with its Python 3.11 as the base; CI builds it from this one.
FROM python:3.12-slim
ARG EXTRAS=slurm
COPY pyproject.toml setup.py README.md LICENSE /opt/ntk_tf/
COPY ntk_tf /opt/ntk_tf/ntk_tf
COPY flags /opt/ntk_tf/flags
RUN pip install --no-cache-dir "/opt/ntk_tf[$EXTRAS]"
ENV HOME=/tmp TFDS_DATA_DIR=/work/tensorflow_datasets
WORKDIR /work
ENTRYPOINT ["ntk-tf"]

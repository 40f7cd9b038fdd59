# The image of docker/ray_job.yaml: this project with Ray, for CUDA or CPU.
# docker build -f docker/ray.Dockerfile -t REGISTRY/relic-ray .
FROM python:3.11-slim
# KubeRay probes its pods with wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
WORKDIR /relic
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[cluster]'

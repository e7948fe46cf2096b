#!/usr/bin/env bash
# Plays overlays/local on this machine with podman, from the images that `make images` builds.
#
#   k8s/local.sh up [PORT]     starts it, waits until it is ready, and asks for a digit and its score (port: 8000)
#   k8s/local.sh down          ends and removes it
set -euo pipefail
cd "$(dirname "$0")/overlays/local"

render() {
  if command -v kustomize >/dev/null; then kustomize build .; else kubectl kustomize .; fi
}

case ${1:-} in
up)
  port=${2:-8000}
  url=http://127.0.0.1:$port
  manifest=$(render)
  manifest=${manifest/hostPort: 8000/hostPort: $port}
  # By a Deployment's only policy, Always, podman starts even an init container again that has ended well.
  manifest=${manifest/ initContainers:/ restartPolicy: OnFailure$'\n'      initContainers:}
  podman kube play --replace - <<<"$manifest"
  echo "Waiting for $url to be ready …"
  SECONDS=0
  until curl --silent --fail --max-time 5 --output /dev/null "$url/healthz/ready"; do
    if ((SECONDS > 180)); then
      echo "not ready after 180 seconds; podman logs gateway-pod-0-model-server tells more" >&2
      exit 1
    fi
    sleep 0.5
  done
  digit=$(mktemp --suffix .png)
  curl --silent --show-error --fail --output "$digit" "$url/digits/7.png"
  echo "A digit is in $digit, and its score is"
  curl --silent --show-error --fail --header 'Content-Type: image/png' --data-binary "@$digit" "$url/score"
  echo
  echo "It runs on: $url. End it with: make kube-down"
  ;;
down)
  render | podman kube down -
  ;;
*)
  echo "usage: k8s/local.sh up [PORT] | down" >&2
  exit 2
  ;;
esac

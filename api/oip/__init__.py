"""The Open Inference Protocol, version 2, so that KServe's and Triton's clients work unchanged.

https://github.com/kserve/open-inference-protocol (``specification/protocol/inference_rest.md``), with Triton's binary
tensor data extension (``docs/protocol/extension_binary_data.md`` of triton-inference-server/server) and the index of
its model repository extension.
"""

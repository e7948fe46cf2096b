"""One signature of a SavedModel as a SavedModel of its own, without the variables that its loading would fill.

OpenVINO reads the signature ``serving_default`` of a directory, with variables from a checkpoint, and runs nothing when
a model is loaded. So a variable that TensorFlow would assign then, in ``__saved_model_init_op`` (a kernel's spectra,
say), is replaced by what would be assigned: OpenVINO computes it once, when it compiles the graph.
"""

from collections.abc import Iterable, Iterator

from serving import apis
from serving.contract import SIGNATURE

INIT_OP = "__saved_model_init_op"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def single_signature(meta_graph: apis.MetaGraphDef, name: str) -> apis.SavedModel:
    """Returns a SavedModel that has the signature ``name`` of ``meta_graph`` as its only one, ``serving_default``."""
    signature = meta_graph.signature_def[name]
    saved = apis.SavedModel(saved_model_schema_version=1)
    target = saved.meta_graphs.add()
    target.meta_info_def.CopyFrom(meta_graph.meta_info_def)
    target.signature_def[SIGNATURE].CopyFrom(signature)
    target.saver_def.CopyFrom(meta_graph.saver_def)  # its nodes tell which variable has which name in the checkpoint
    functions = {each.signature.name: each for each in meta_graph.graph_def.library.function}
    _copy(
        meta_graph.graph_def.node,
        functions,
        [
            *(info.name for info in (*signature.inputs.values(), *signature.outputs.values())),
            meta_graph.saver_def.restore_op_name,
        ],
        target.graph_def,
    )
    for handle, value in _assigned(meta_graph, functions):
        _replace(target.graph_def, handle, value)
    return saved


def _copy(
    nodes: Iterable[apis.NodeDef], functions: dict[str, apis.FunctionDef], tensors: list[str], target: apis.GraphDef
) -> None:
    """Copies the nodes that compute ``tensors`` and the functions that they call."""
    needed = _ancestors(nodes, tensors)
    target.node.extend(needed)
    target.library.function.extend(_called(needed, functions))


def _node_of(reference: str) -> str:
    """The node's name in "node", "node:1", "node:output:0" or "^node"."""
    return reference.removeprefix("^").partition(":")[0]


def _ancestors(nodes: Iterable[apis.NodeDef], tensors: Iterable[str]) -> list[apis.NodeDef]:
    """Returns the nodes that ``tensors`` need, in their own order."""
    nodes = list(nodes)
    by_name = {node.name: node for node in nodes}
    needed: set[str] = set()
    pending = [_node_of(each) for each in tensors]
    while pending:
        name = pending.pop()
        if name not in needed and name in by_name:  # what isn't a node is a function's argument
            needed.add(name)
            pending += [_node_of(each) for each in by_name[name].input]
    return [node for node in nodes if node.name in needed]


def _called(nodes: Iterable[apis.NodeDef], functions: dict[str, apis.FunctionDef]) -> list[apis.FunctionDef]:
    """Returns the functions that are called by these nodes, by any attribute, and by those functions' nodes."""
    found: dict[str, apis.FunctionDef] = {}
    pending = list(nodes)
    while pending:
        for attribute in pending.pop().attr.values():
            for name in [attribute.func.name, *(each.name for each in attribute.list.func)]:
                if name in functions and name not in found:
                    found[name] = functions[name]
                    pending += functions[name].node_def
    return list(found.values())


def _assigned(
    meta_graph: apis.MetaGraphDef, functions: dict[str, apis.FunctionDef]
) -> Iterator[tuple[str, apis.FunctionDef]]:
    """Yields the variables that the loading of the graph fills: the handle's node, and a function of what it is filled
    with.
    """
    if INIT_OP not in meta_graph.signature_def:
        return
    operation = meta_graph.signature_def[INIT_OP].outputs[INIT_OP].name
    for node in _ancestors(meta_graph.graph_def.node, [operation]):
        yield from _assigned_by(node, {each: _node_of(each) for each in node.input}, functions)


def _assigned_by(
    call: apis.NodeDef, handles: dict[str, str], functions: dict[str, apis.FunctionDef]
) -> Iterator[tuple[str, apis.FunctionDef]]:
    """Yields what a call fills, and what the calls in it fill: a model that was loaded and saved again has one in
    another. ``handles``: the node in the graph that each of the call's inputs comes from.
    """
    if call.op not in _CALLS:
        return
    function = functions[call.attr["f"].func.name]
    arguments = {
        argument.name: handles[taken]
        for argument, taken in zip(function.signature.input_arg, call.input, strict=False)  # control inputs come last
        if taken in handles
    }
    for node in function.node_def:
        if node.op == "AssignVariableOp":
            yield arguments[node.input[0]], _value_function(function, node)
        else:
            yield from _assigned_by(node, arguments, functions)


def _value_function(function: apis.FunctionDef, assign: apis.NodeDef) -> apis.FunctionDef:
    """Returns a function without arguments that gives what ``assign``, a node of ``function``, assigns."""
    value = apis.FunctionDef()
    value.signature.name = f"{function.signature.name}_{assign.name}"
    value.signature.output_arg.add(name="value", type=assign.attr["dtype"].type)
    value.ret["value"] = assign.input[1]
    value.node_def.extend(_ancestors(function.node_def, [assign.input[1]]))
    return value


def _replace(graph: apis.GraphDef, handle: str, value: apis.FunctionDef) -> None:
    """Puts a call of ``value`` in the place of the variable's ``handle``, and its result wherever that was read."""
    dtype = value.signature.output_arg[0].type
    functions = {each.signature.name: each for each in graph.library.function}
    for node in graph.node:
        if node.name == handle:
            node.op = "PartitionedCall"
            node.attr.clear()
            node.attr["Tin"].list.SetInParent()
            node.attr["Tout"].list.type.append(dtype)
            node.attr["f"].func.name = value.signature.name
            graph.library.function.append(value)
            _retype(graph.node, handle, dtype, functions)
            return


def _retype(nodes: Iterable[apis.NodeDef], tensor: str, dtype: int, functions: dict[str, apis.FunctionDef]) -> None:
    """Makes those of ``nodes`` that take the handle ``tensor`` take the variable's value instead."""
    nodes = list(nodes)
    for node in nodes:
        for position, taken in enumerate(node.input):
            if taken != tensor:
                continue
            if node.op == "ReadVariableOp":
                node.op = "Identity"
                node.attr.clear()
                node.attr["T"].type = dtype
                for other in nodes:  # an output's name is part of a reference in a function
                    for at, reference in enumerate(other.input):
                        if reference == f"{node.name}:value:0":
                            other.input[at] = f"{node.name}:output:0"
            elif node.op in _CALLS:
                node.attr["Tin"].list.type[position] = dtype
                function = functions[node.attr["f"].func.name]
                argument = function.signature.input_arg[position]
                if argument.type != dtype:
                    argument.type = dtype
                    _retype(function.node_def, argument.name, dtype, functions)

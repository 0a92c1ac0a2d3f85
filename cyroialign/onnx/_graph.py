"""The nodes of a model that this package is to compute in ONNX Runtime."""

from collections.abc import Collection, Iterable, Iterator

import onnx

from cyroialign.onnx._operators import LEGACY, OPERATORS, STANDARD

DOMAIN = "cyroialign"  # of the operators that ONNX Runtime finds here


def replace(model: onnx.ModelProto, names: Collection[str] | None, threads: int) -> None:
    """Move each node that is computed here, or those of the given names, to the domain of this package."""
    known = set()
    for nodes, imports in [(one.node, one.opset_import) for one in model.functions] + [
        (model.graph.node, model.opset_import)
    ]:
        version = {one.domain or "ai.onnx": one.version for one in imports}.get("ai.onnx", 1)
        found = [
            node
            for node in _nodes(nodes)
            if node.op_type in OPERATORS and node.domain in OPERATORS[node.op_type].domains
        ]
        known |= {node.name for node in found}
        chosen = [node for node in found if names is None or node.name in names]
        for node in chosen:
            _say_all(node, version, threads)
            node.domain = DOMAIN
        if chosen:
            imports.append(onnx.helper.make_opsetid(DOMAIN, 1))
    if names is not None and not known.issuperset(names):
        unknown = sorted(set(names) - known)
        raise ValueError(f"nodes must name RoiAlign nodes of the model, {sorted(known)}, got {unknown}")


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches and bodies of loops as well."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _say_all(node: onnx.NodeProto, version: int, threads: int) -> None:
    """Add the attributes that the version of the operator leaves out, for an operator without versions."""
    unsaid = [onnx.helper.make_attribute("num_threads", threads)]
    if node.domain in STANDARD:
        defaults = onnx.defs.get_schema(node.op_type, version, "").attributes.values()
        unsaid += [one.default_value for one in defaults]
        unsaid += [onnx.helper.make_attribute(name, value) for name, value in LEGACY.items()]
    said = {attribute.name for attribute in node.attribute}
    for attribute in unsaid:
        if attribute.name not in said:
            node.attribute.append(attribute)
            said.add(attribute.name)

"""Reads from the code which AWS operations can be reached from where, and on which resource; runs none of it.

It follows values through the source: a door calls a factory of wiring, that one makes adapters, the use case calls
some of their methods. A value here is what a name *may* hold, in whatever order the statements run, so that nothing
that can happen is left out. A container is all that is in it, and a library's call may answer with all it was given
and call it, too. What would make the answer a guess raises Unfollowed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

import botocore.session
from botocore import xform_name

PROJECT = Path(__file__).parents[2]
AWS_MODULE = "chalicelib.postern.adapters.aws"

# In a call of this service, the argument that names the resource.
# An empty one: the service's operations take no resource.
RESOURCE_ARGUMENT = {
    "cloudwatch": "",
    "sqs": "QueueUrl",
    "s3": "Bucket",
    "secretsmanager": "SecretId",
    "lambda": "FunctionName",
}


class Unfollowed(Exception):
    """The code does something of which nobody could say here what it asks of AWS."""


@dataclass(frozen=True)
class AwsCall:
    """`variable` is the environment variable that names the resource; empty where there is none to name."""

    service: str
    operation: str
    variable: str
    place: str


@dataclass(frozen=True)
class Text:
    value: str


@dataclass(frozen=True)
class Environ:
    """os.environ."""


@dataclass(frozen=True)
class Getattr:
    """The built-in function."""


@dataclass(frozen=True)
class EnvironGet:
    """os.environ.get."""


@dataclass(frozen=True)
class Variable:
    """What the environment says under this name."""

    name: str


@dataclass(frozen=True)
class Client:
    service: str


@dataclass(frozen=True)
class Method:
    """A method of a client, such as `send_message`."""

    service: str
    name: str


@dataclass(frozen=True)
class Module:
    name: str


@dataclass(frozen=True)
class Imported:
    """`from module import name`, looked up when it is used: modules may import each other for their types."""

    module: str
    name: str


@dataclass(eq=False)
class Scope:
    module: str
    names: dict[str, Values] = field(default_factory=dict)
    outer: Scope | None = None

    def add(self, name: str, values: Values) -> None:
        self.names[name] = self.names.get(name, NOTHING) | values

    def holder(self, name: str) -> Scope | None:
        """The scope that has the name: this one or one around it."""
        return self if name in self.names else self.outer.holder(name) if self.outer else None


@dataclass(frozen=True)
class Function:
    node: ast.FunctionDef | ast.Lambda
    scope: Scope
    itself: Instance | Class | None = None


@dataclass(frozen=True)
class Class:
    node: ast.ClassDef
    scope: Scope


@dataclass(eq=False)
class Instance:
    cls: Class
    fields: dict[str, Values] = field(default_factory=dict)


Value: TypeAlias = (
    Text | Environ | EnvironGet | Variable | Client | Method | Module | Imported | Getattr | Function | Class | Instance
)
Values: TypeAlias = frozenset[Value]
NOTHING: Values = frozenset()


@dataclass
class Arguments:
    """Of a call. `rest` came by `*` or `**`, and may be any parameter."""

    positional: list[Values]
    named: dict[str, Values]
    rest: Values

    def all(self) -> Values:
        return self.rest.union(*self.positional, *self.named.values())


NO_ARGUMENTS = Arguments([], {}, NOTHING)


def read_sources() -> dict[str, str]:
    """The text of every module that is packaged."""
    files = [PROJECT / "app.py", *sorted((PROJECT / "chalicelib").rglob("*.py"))]
    return {
        ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): file.read_text("utf-8")
        for file in files
    }


def doors(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """For each of the deployed functions, by Chalice's name of it: the functions of app.py that it enters by."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(sources["app"]).body:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            assert isinstance(node, ast.FunctionDef)
            match decorator:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="app"), attr="route" | "middleware")):
                    found.setdefault("api_handler", []).append(node.name)
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Name(id="app"), attr="on_sqs_message" | "schedule" | "lambda_function"
                    ),
                    keywords=keywords,
                ):
                    names = [k.value.value for k in keywords if k.arg == "name" and isinstance(k.value, ast.Constant)]
                    found.setdefault(str(names[0]) if names else node.name, []).append(node.name)
                case _:
                    raise Unfollowed(f"app.py:{node.lineno}: what kind of door is @{ast.unparse(decorator)}?")
    return found


def client_places(sources: Mapping[str, str]) -> set[str]:
    """Every place in the adapters where a client is asked for."""
    places: set[str] = set()
    for module, text in sources.items():
        if module == AWS_MODULE:
            continue
        for node in ast.walk(ast.parse(text)):
            match node:
                case (
                    ast.Import(names=[ast.alias(name="boto3" | "botocore"), *_])
                    | ast.ImportFrom(module="chalicelib.postern.adapters.aws" | "boto3" | "botocore")
                ):
                    raise Unfollowed(f"{place_of(module, node)}: say aws.<service>(), so that it is found here.")
                case ast.Call(func=ast.Attribute(value=ast.Name(id="aws"), attr=name)) if name != "failing_as":
                    places.add(place_of(module, node))
    return places


def place_of(module: str, node: ast.AST) -> str:
    return f"{module.replace('.', '/')}.py:{getattr(node, 'lineno', 0)}"


@cache
def operations_of(service: str) -> dict[str, str]:
    """Method of a client -> operation of the service."""
    model = botocore.session.get_session().get_service_model(service)
    return {xform_name(name): name for name in model.operation_names}


class Reader:
    """Follows the code from one place on; `calls` and `clients` are what was come across."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.calls: set[AwsCall] = set()
        self.clients: set[str] = set()
        self._sources = sources
        self._modules: dict[str, Scope] = {}
        # By function and arguments; in one pass each is run once.
        self._answers: dict[object, Values] = {}
        self._scopes: dict[object, Scope] = {}
        self._visited: set[object] = set()
        # By class and arguments.
        self._made: dict[object, Instance] = {}

    def enter(self, module: str, function: str) -> None:
        """Imports the module and calls its function."""
        found = self._look_up(self._module(module), function)
        if not any(isinstance(value, Function) for value in found):
            raise Unfollowed(f"{module} has no function {function}.")
        before = -1
        # Until nothing is new: what is called first may use what is set by what is called later.
        while before < len(self.calls) + len(self.clients):
            before = len(self.calls) + len(self.clients)
            self._visited.clear()
            self._call_all(found, NO_ARGUMENTS, "the door")

    def _module(self, name: str) -> Scope:
        if name not in self._modules:
            scope = self._modules[name] = Scope(name)
            self._run(ast.parse(self._sources[name]).body, scope)
        return self._modules[name]

    # Statements.

    def _run(self, body: list[ast.stmt], scope: Scope) -> Values:
        """What the statements return or yield."""
        return NOTHING.union(*(self._node(statement, scope) for statement in body))

    def _node(self, node: ast.AST, scope: Scope) -> Values:
        match node:
            case ast.expr():
                self._value(node, scope)
                return self._yielded(node, scope)
            case ast.FunctionDef(name=name):
                scope.add(name, frozenset({Function(node, scope)}))
                for expression in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
                    self._value(expression, scope)
                return NOTHING
            case ast.ClassDef(name=name):
                scope.add(name, frozenset({Class(node, scope)}))
                return NOTHING
            case ast.Import():
                for alias in node.names:
                    scope.add(alias.asname or alias.name.split(".")[0], frozenset({Module(alias.asname or alias.name)}))
                return NOTHING
            case ast.ImportFrom(module=str(module)):
                for alias in node.names:
                    scope.add(alias.asname or alias.name, frozenset({Imported(module, alias.name)}))
                return NOTHING
            case ast.Return(value=ast.expr() as value):
                return self._value(value, scope) | self._yielded(value, scope)
            case ast.Assign(value=value, targets=targets):
                for target in targets:
                    self._bind(target, self._value(value, scope), scope)
                return self._yielded(value, scope)
            case ast.AnnAssign(value=ast.expr() as value) | ast.AugAssign(value=value):
                self._bind(node.target, self._value(value, scope), scope)
                return self._yielded(value, scope)
            case ast.AnnAssign():
                return NOTHING
            case ast.For(target=target, iter=source):
                self._bind(target, self._value(source, scope), scope)
            case ast.withitem(context_expr=source, optional_vars=target):
                entered = self._entered(self._value(source, scope))
                if target is not None:
                    self._bind(target, entered, scope)
                return NOTHING
            case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith():
                raise Unfollowed(f"{place_of(scope.module, node)}: async is not followed.")
        return NOTHING.union(*(self._node(child, scope) for child in ast.iter_child_nodes(node)))

    def _entered(self, values: Values) -> Values:
        """What `with` gives: what __enter__ answers, or what a generator yields."""
        for value in values:
            if isinstance(value, Instance):
                self._call_all(self._member(value.cls, "__exit__", value), NO_ARGUMENTS, "")
                values |= self._call_all(self._member(value.cls, "__enter__", value), NO_ARGUMENTS, "")
        return values

    def _yielded(self, node: ast.expr, scope: Scope) -> Values:
        found = [part.value for part in ast.walk(node) if isinstance(part, ast.Yield | ast.YieldFrom) and part.value]
        return NOTHING.union(*(self._value(value, scope) for value in found))

    def _bind(self, target: ast.expr, values: Values, scope: Scope) -> None:
        match target:
            case ast.Name(id=name):
                scope.add(name, values)
            case ast.Attribute(value=owner, attr=name):
                for value in self._value(owner, scope):
                    if isinstance(value, Instance):
                        value.fields[name] = value.fields.get(name, NOTHING) | values
            case ast.Subscript(value=ast.Name(id=name)):
                (scope.holder(name) or scope).add(name, values)
            case ast.Subscript(value=container):
                self._bind(container, values, scope)
            case ast.Starred(value=inner):
                self._bind(inner, values, scope)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self._bind(part, values, scope)
            case _ if self._value(target, scope) | values:
                raise Unfollowed(f"{place_of(scope.module, target)}: {ast.unparse(target)} is not followed.")

    # Expressions.

    def _value(self, node: ast.expr, scope: Scope) -> Values:
        match node:
            case ast.Constant(value=str(text)):
                return frozenset({Text(text)})
            case ast.Name(id=name):
                return self._look_up(scope, name)
            case ast.Attribute(value=owner, attr=name):
                return NOTHING.union(*(self._attribute(value, name) for value in self._value(owner, scope)))
            case ast.Call():
                return self._call(node, scope)
            case ast.Lambda():
                return frozenset({Function(node, scope)})
            case ast.NamedExpr(target=target, value=inner):
                values = self._value(inner, scope)
                self._bind(target, values, scope)
                return values
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node, scope)
            case ast.Compare():
                self._parts(node, scope)
                return NOTHING
        return self._parts(node, scope)

    def _parts(self, node: ast.AST, scope: Scope) -> Values:
        return NOTHING.union(
            *(
                self._value(part, scope) if isinstance(part, ast.expr) else self._parts(part, scope)
                for part in ast.iter_child_nodes(node)
            )
        )

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope
    ) -> Values:
        inner = Scope(scope.module, outer=scope)
        for generator in node.generators:
            self._bind(generator.target, self._value(generator.iter, inner), inner)
            for test in generator.ifs:
                self._value(test, inner)
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return NOTHING.union(*(self._value(result, inner) for result in results))

    def _look_up(self, scope: Scope, name: str) -> Values:
        holder = scope.holder(name)
        if holder is None:
            return frozenset({Getattr()}) if name == "getattr" else NOTHING
        return NOTHING.union(*(self._resolved(value) for value in holder.names[name]))

    def _resolved(self, value: Value) -> Values:
        if not isinstance(value, Imported):
            return frozenset({value})
        return self._attribute(Module(value.module), value.name)

    def _attribute(self, owner: Value, name: str) -> Values:
        match owner:
            case Module(name="os") if name == "environ":
                return frozenset({Environ()})
            case Module(name=module) if f"{module}.{name}" in self._sources:
                return frozenset({Module(f"{module}.{name}")})
            case Module(name=module) if module in self._sources:
                return self._look_up(self._module(module), name)
            case Module(name=module) if any(known.startswith(f"{module}.") for known in self._sources):
                return frozenset({Module(f"{module}.{name}")})
            case Environ() if name == "get":
                return frozenset({EnvironGet()})
            case Client(service=service):
                return frozenset({Method(service, name)})
            case Instance():
                return owner.fields.get(name, NOTHING) | self._member(owner.cls, name, owner)
            case Class():
                return self._member(owner, name, owner)
        return NOTHING

    def _member(self, cls: Class, name: str, itself: Instance | Class) -> Values:
        for node in cls.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                # Of a class, only a class method is given what it is called on.
                owner = None if "staticmethod" in decorators else itself
                if isinstance(itself, Class) and "classmethod" not in decorators:
                    owner = None
                elif isinstance(itself, Instance) and "classmethod" in decorators:
                    owner = itself.cls
                function = Function(node, cls.scope, owner)
                if {"property", "cached_property"} & set(decorators):
                    return self._run_function(function, NO_ARGUMENTS)
                return frozenset({function})
        bases = [value for base in cls.node.bases for value in self._value(base, cls.scope)]
        return NOTHING.union(*(self._member(base, name, itself) for base in bases if isinstance(base, Class)))

    # Calls.

    def _call(self, node: ast.Call, scope: Scope) -> Values:
        called = self._value(node.func, scope)
        arguments = Arguments(
            [self._value(a, scope) for a in node.args if not isinstance(a, ast.Starred)],
            {keyword.arg: self._value(keyword.value, scope) for keyword in node.keywords if keyword.arg},
            NOTHING.union(
                *(self._value(a.value, scope) for a in node.args if isinstance(a, ast.Starred)),
                *(self._value(keyword.value, scope) for keyword in node.keywords if not keyword.arg),
            ),
        )
        place = place_of(scope.module, node)
        answers = self._call_all(called, arguments, place)
        if not any(isinstance(value, Function | Class | Method | Getattr | EnvironGet) for value in called):
            answers |= self._call_outside(node, arguments, scope)
        if any(isinstance(value, Client) for value in answers):
            self.clients.add(place)
        return answers

    def _call_all(self, called: Values, arguments: Arguments, place: str) -> Values:
        return NOTHING.union(*(self._call_one(value, arguments, place) for value in called))

    def _call_one(self, called: Value, arguments: Arguments, place: str) -> Values:
        match called:
            case Function(node=ast.FunctionDef(name="_client"), scope=Scope(module="chalicelib.postern.adapters.aws")):
                return frozenset(Client(value.value) for value in arguments.all() if isinstance(value, Text))
            case Function():
                return self._run_function(called, arguments)
            case Class():
                return frozenset({self._instance(called, arguments)})
            case Instance():
                return self._call_all(self._member(called.cls, "__call__", called), arguments, place)
            case Method():
                self._record(called, arguments, place)
                return NOTHING
            case Getattr() if arguments.positional:
                names = [value.value for value in arguments.all() if isinstance(value, Text)]
                owners = arguments.positional[0]
                return NOTHING.union(*(self._attribute(owner, name) for owner in owners for name in names))
            case EnvironGet():
                return frozenset(Variable(value.value) for value in arguments.all() if isinstance(value, Text))
        return NOTHING

    def _call_outside(self, node: ast.Call, arguments: Arguments, scope: Scope) -> Values:
        """A library's function: it may call what it is given, and answer with it or with what it is a method of."""
        given = arguments.all()
        if any(isinstance(value, Client | Method) for value in given):
            raise Unfollowed(f"{place_of(scope.module, node)}: {ast.unparse(node.func)} is given a client.")
        for value in given:
            if isinstance(value, Function):
                given |= self._run_function(value, NO_ARGUMENTS)
        return given | (self._value(node.func.value, scope) if isinstance(node.func, ast.Attribute) else NOTHING)

    def _run_function(self, function: Function, arguments: Arguments) -> Values:
        scope = Scope(function.scope.module, outer=function.scope)
        for name, values in self._parameters(function, arguments).items():
            scope.add(name, values)
        key = (function, frozenset(scope.names.items()))
        if key not in self._visited:
            self._visited.add(key)
            scope = self._scopes.setdefault(key, scope)
            node = function.node
            answer = self._value(node.body, scope) if isinstance(node, ast.Lambda) else self._run(node.body, scope)
            self._answers[key] = self._answers.get(key, NOTHING) | answer
        return self._answers.get(key, NOTHING)

    def _parameters(self, function: Function, arguments: Arguments) -> dict[str, Values]:
        given = function.node.args
        positional = [parameter.arg for parameter in (*given.posonlyargs, *given.args)]
        values = [*([frozenset({function.itself})] if function.itself else []), *arguments.positional]
        bound: dict[str, Values] = dict(zip(positional, values, strict=False)) | arguments.named
        defaults: list[tuple[str, ast.expr | None]] = [
            *zip(reversed(positional), reversed(given.defaults), strict=False),
            *zip([parameter.arg for parameter in given.kwonlyargs], given.kw_defaults, strict=True),
        ]
        usual = {name: self._value(value, function.scope) for name, value in defaults if value}
        for name in [*positional, *(parameter.arg for parameter in given.kwonlyargs)]:
            if name not in bound:
                bound[name] = arguments.rest | usual.get(name, NOTHING)
        for collector in filter(None, (given.vararg, given.kwarg)):
            bound[collector.arg] = arguments.all()
        return bound

    def _instance(self, cls: Class, arguments: Arguments) -> Instance:
        key = (cls, tuple(arguments.positional), frozenset(arguments.named.items()), arguments.rest)
        made = self._made.setdefault(key, Instance(cls))
        if starters := self._member(cls, "__init__", made):
            self._call_all(starters, arguments, "")
        else:  # a dataclass
            declared = [node.target for node in cls.node.body if isinstance(node, ast.AnnAssign)]
            fields = [target.id for target in declared if isinstance(target, ast.Name)]
            given = dict(zip(fields, arguments.positional, strict=False)) | arguments.named
            for name in fields:
                made.fields[name] = made.fields.get(name, NOTHING) | given.get(name, arguments.rest)
            self._call_all(self._member(cls, "__post_init__", made), NO_ARGUMENTS, "")
        return made

    def _record(self, method: Method, arguments: Arguments, place: str) -> None:
        operation = operations_of(method.service).get(method.name)
        if operation is None:
            raise Unfollowed(f"{place}: {method.name} is no operation of {method.service}; which ones does it use?")
        argument = RESOURCE_ARGUMENT.get(method.service)
        if argument == "":
            self.calls.add(AwsCall(method.service, operation, "", place))
            return
        named = arguments.named.get(argument or "", NOTHING)
        variables = [value for value in named if isinstance(value, Variable)]
        if not variables or len(variables) < len(named):
            raise Unfollowed(f"{place}: which resource does {method.name} mean? Found {sorted(map(str, named))}.")
        self.calls |= {AwsCall(method.service, operation, variable.name, place) for variable in variables}


def derive(sources: Mapping[str, str]) -> dict[str, set[AwsCall]]:
    """What each deployed function may call. Each calls something, and every client is met by one of them."""
    return _derive(frozenset(sources.items()))


@cache
def _derive(texts: frozenset[tuple[str, str]]) -> dict[str, set[AwsCall]]:
    sources = dict(texts)
    found: dict[str, set[AwsCall]] = {}
    met: set[str] = set()
    for function, entries in doors(sources).items():
        reader = Reader(sources)
        for entry in entries:
            reader.enter("app", entry)
        if not reader.calls:
            raise Unfollowed(f"{function} seems to call nothing of AWS, which cannot be.")
        found[function] = reader.calls
        met |= reader.clients
    if missed := client_places(sources) - met:
        raise Unfollowed(f"No function was seen to come to {', '.join(sorted(missed))}.")
    return found

# SPDX-License-Identifier: MIT
"""PTX text to a `Module` (PTX ISA, chapters 4 to 6 and 11)."""

from __future__ import annotations

from ts_gpusim.ptx.body import read_body
from ts_gpusim.ptx.declarations import SPACES, read_parameters, read_variables
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.lexer import END, INTEGER, STRING, WORD, Tokens
from ts_gpusim.ptx.scopes import Scopes
from ts_gpusim.ptx.syntax import Function, Kernel, Module, Variable

_LINKING = (".visible", ".weak", ".extern", ".common")


def parse(text: str) -> Module:
    """The whole text. Raises PtxError, which names the line, for what is no PTX; whether the
    machine knows an instruction is the question of `isa.check`."""
    tokens = Tokens(text.rstrip("\0"))
    module = _header(tokens)
    module.files.update(_files(tokens))
    while tokens.kind != END:
        _module_statement(tokens, module)
    return module


def _header(tokens: Tokens) -> Module:
    """`.version 8.8`, `.target sm_100a`, `.address_size 64` (PTX ISA 11.1)."""
    tokens.expect(".version")
    line = tokens.line
    major, dot, minor = tokens.take().partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(major + minor) < 9):
        raise PtxError("`.version` takes a number such as 9.0", line)
    tokens.expect(".target")
    target = tokens.expect_kind(WORD, "a target such as sm_100a")
    while tokens.accept(","):
        tokens.expect_kind(WORD, "an option of the target")
    address_size = 64
    if tokens.accept(".address_size"):
        line = tokens.line
        address_size = tokens.integer()
        if address_size != 64:
            raise PtxError(f"the address size is {address_size}, but only 64 is supported", line)
    return Module((int(major), int(minor)), target, address_size)


def _files(tokens: Tokens) -> dict[int, str]:
    """`.file 1 "name"` may stand after the kernels whose `.loc` name it."""
    files = {}
    for index, text in enumerate(tokens.texts[:-2]):
        if text == ".file" and tokens.kinds[index + 1 : index + 3] == [INTEGER, STRING]:
            number = tokens.texts[index + 1]
            if number.isdecimal() and len(number) < 10:
                files[int(number)] = tokens.texts[index + 2][1:-1]
    return files


def _module_statement(tokens: Tokens, module: Module) -> None:
    line = tokens.line
    extern = False
    while tokens.text in _LINKING:
        extern |= tokens.take() == ".extern"
    text = tokens.text
    if text == ".entry":
        kernel = _kernel(tokens, module)
        if kernel.name in module.kernels:
            raise PtxError(f"kernel `{kernel.name}` is defined twice; rename one", line)
        module.kernels[kernel.name] = kernel
    elif text in SPACES:
        for variable in read_variables(tokens, None):
            _add_variable(module, variable, extern, line)
    elif text == ".func":
        _function(tokens, module)
    elif text == ".alias":
        raise PtxError("`.alias` is not supported; call the function by its own name", line)
    elif tokens.accept(".file"):
        tokens.integer()
        tokens.expect_kind(STRING, "a file name")
        while tokens.accept(","):  # time of change and size
            tokens.integer()
    elif tokens.accept(".section"):
        _skip_braces(tokens)
    elif tokens.accept(".pragma"):
        tokens.expect_kind(STRING, "the text of a pragma")
        tokens.expect(";")
    elif not tokens.accept(";"):
        raise tokens.error("a kernel, a variable, `.file` or `.section`")


def _add_variable(module: Module, variable: Variable, extern: bool, line: int) -> None:
    """An `extern` shared array has no size yet; what other modules define cannot be linked."""
    if extern and variable.space != "shared":
        raise PtxError(f"`{variable.name}` is defined in no module here; link it first", line)
    if variable.size == 0 and not extern:
        raise PtxError(f"`{variable.name}` has no size; give its array one", line)
    if variable.name in module.variables:
        raise PtxError(f"variable `{variable.name}` is declared twice; rename one", line)
    module.variables[variable.name] = variable


def _skip_braces(tokens: Tokens) -> None:
    """Past a debug section, `.debug_info { ... }` (PTX ISA 11.5.3)."""
    while tokens.kind != END and tokens.text != "{":
        tokens.take()
    while tokens.kind != END and tokens.text != "}":
        tokens.take()
    tokens.expect("}")


def _kernel(tokens: Tokens, module: Module) -> Kernel:
    """`.entry name (parameters) directives { body }` (PTX ISA 11.2.1)."""
    tokens.expect(".entry")
    kernel = Kernel(tokens.expect_kind(WORD, "the kernel's name"))
    scopes = Scopes({*module.variables, *module.functions})
    scopes.enter()
    kernel.parameters = read_parameters(tokens, scopes)
    _performance_directives(tokens, kernel)
    if tokens.text != "{":
        raise tokens.error("the body of the kernel, `{`,")
    read_body(tokens, scopes, kernel, module)
    return kernel


_OF_FUNCTIONS = (".noreturn", ".unique", ".abi_preserve", ".abi_preserve_control", ".pragma")


def _function(tokens: Tokens, module: Module) -> None:
    """`.func (returns) name (parameters) { body }`, or `;` instead of a body (PTX ISA 11.2.2)."""
    line = tokens.line
    tokens.expect(".func")
    scopes = Scopes({*module.variables, *module.functions})
    scopes.enter()
    returns = read_parameters(tokens, scopes)
    name = tokens.expect_kind(WORD, "the function's name")
    function = Function(name, read_parameters(tokens, scopes), returns=returns)
    while tokens.text in _OF_FUNCTIONS:
        tokens.take()
        if tokens.kind in (INTEGER, STRING):
            tokens.take()
    module.functions.setdefault(name, function)  # it may call itself
    if tokens.accept(";"):
        return
    if module.functions[name].defined:
        raise PtxError(f"function `{name}` is defined twice; rename one", line)
    if tokens.text != "{":
        raise tokens.error("the body of the function, `{`, or `;`")
    scopes.add_module_symbol(name)
    read_body(tokens, scopes, function, module)
    function.defined = True
    module.functions[name] = function


def _performance_directives(tokens: Tokens, kernel: Kernel) -> None:
    """PTX ISA 11.4 (performance tuning) and 11.7 (cluster dimensions)."""
    while tokens.text.startswith("."):
        line = tokens.line
        directive = tokens.take()
        match directive:
            case ".maxntid":
                kernel.max_threads = _three(tokens)
            case ".reqntid":
                kernel.required_threads = _three(tokens)
            case ".reqnctapercluster":
                kernel.required_cluster = _three(tokens)
            case ".explicitcluster" | ".blocksareclusters":
                kernel.explicit_cluster = True
            case ".maxnreg":
                kernel.max_registers = tokens.integer()
            case ".minnctapersm":
                kernel.min_ctas_per_sm = tokens.integer()
            case ".maxnctapersm" | ".maxclusterrank":
                tokens.integer()
            case ".pragma":
                tokens.expect_kind(STRING, "the text of a pragma")
                tokens.accept(";")
            case ".noreturn":
                pass
            case _:
                raise PtxError(
                    f"`{directive}` is no directive of a kernel that is supported "
                    "(PTX ISA 11.4); remove it",
                    line,
                )


def _three(tokens: Tokens) -> tuple[int, int, int]:
    """`128`, `128, 1` or `128, 1, 1`; what is left out is 1."""
    sizes = [tokens.integer()]
    while len(sizes) < 3 and tokens.accept(","):
        sizes.append(tokens.integer())
    sizes += [1] * (3 - len(sizes))
    return sizes[0], sizes[1], sizes[2]

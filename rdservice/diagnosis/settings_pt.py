"""Brazilian Portuguese for what `rdservice.settings` says of mistakes, which it says in English."""

import re

_PROBLEMS = (
    (r"is not set", "não está definida"),
    (r"must be a whole number from (\d+) to (\d+)", r"deve ser um número inteiro de \1 a \2"),
    (r"holds a URL; it must be the app's client_id", "contém uma URL; deve ser o client_id do aplicativo"),
    (r"contains white space", "contém espaços"),
    (
        r"contains white space; several secrets are separated by commas",
        "contém espaços; vários segredos são separados por vírgulas",
    ),
    (r"holds only commas", "contém só vírgulas"),
    (
        r"holds a URL: were the secret and RDSTATION_REDIRECT_URI swapped\?",
        "contém uma URL: o segredo e RDSTATION_REDIRECT_URI foram trocados?",
    ),
    (r"is the same as RDSTATION_CLIENT_ID", "é igual a RDSTATION_CLIENT_ID"),
    (
        r"holds the client secret; it must be the callback URL",
        "contém o client secret; deve ser a URL de callback",
    ),
    (
        r"looks like a secret or an id; it must be the absolute URL of (\S+) on this service",
        r"parece um segredo ou um id; deve ser a URL absoluta de \1 neste serviço",
    ),
    (r"must be the absolute URL of (\S+) on this service", r"deve ser a URL absoluta de \1 neste serviço"),
    (r"must begin with (https://|postgres:// or postgresql://)", r"deve começar com \1"),
    (r"must end in (\S+), with nothing after it", r"deve terminar em \1, sem nada depois"),
    (
        r"names a local host, which RD Station cannot send operators back to",
        "indica um host local, para o qual o RD Station não consegue mandar os operadores de volta",
    ),
    (
        r"must use https \(http is for local hosts only\)",
        "deve usar https (http serve só para hosts locais)",
    ),
    (
        r"must be an absolute http\(s\) URL without credentials",
        "deve ser uma URL http(s) absoluta, sem credenciais",
    ),
    (
        r"must be names of scopes, in small letters, separated by spaces",
        "deve conter nomes de escopos, em letras minúsculas, separados por espaços",
    ),
    (
        r"has no plausible host, port or database \(is the password percent-encoded\?\)",
        "não tem host, porta ou banco plausíveis (a senha está codificada com %?)",
    ),
    (
        r"must be production, development or not set",
        "deve ser production, development ou ficar sem valor",
    ),
    (
        r"has a NUL or bytes that are no UTF-8",
        "contém um NUL ou bytes que não são UTF-8",
    ),
    (
        r"must have no path: only scheme, host and port",
        "não pode ter caminho: só esquema, host e porta",
    ),
    (
        r"must use https: tokens and the client secret travel on it",
        "deve usar https: os tokens e o client secret passam por ela",
    ),
    (
        r"cannot be parsed \(are special characters percent-encoded\?\)",
        "não pode ser interpretada (os caracteres especiais estão codificados com %?)",
    ),
    (r"is shorter than (\d+) characters", r"tem menos de \1 caracteres"),
    (
        r"entry (\d+) is neither a Fernet key nor 64 hexadecimal digits",
        r"tem na posição \1 algo que não é uma chave Fernet nem 64 dígitos hexadecimais",
    ),
    (
        r"entry (\d+) is empty: there is a comma too many",
        r"não tem nada na posição \1: há uma vírgula a mais",
    ),
    (
        r"entry (\d+) contains white space; several keys are separated by commas",
        r"contém espaços na posição \1; várias chaves são separadas por vírgulas",
    ),
    (r"entry (\d+) contains a quotation mark: leave it out", r"tem aspas na posição \1: tire-as"),
    (
        r"entry (\d+) has (\d+) hexadecimal digits, not (\d+)",
        r"tem \2 dígitos hexadecimais na posição \1, e não \3",
    ),
    (
        r"entry (\d+) lacks the = at its end: copy the whole key",
        r"não tem o = no fim da chave na posição \1: copie a chave inteira",
    ),
    (
        r"entry (\d+) is base64 of (\d+) bytes, not of (\d+)",
        r"tem na posição \1 base64 de \2 bytes, e não de \3",
    ),
    (
        r"(\S+) cannot be read: save it in the encoding UTF-8",
        r"\1 não pode ser lido: salve-o na codificação UTF-8",
    ),
    (r"(\S+) cannot be read \((.*)\)", r"\1 não pode ser lido (\2)"),
)


def problem(what: str) -> str:
    """Return the Portuguese for what `rdservice.settings` says is wrong; `what` itself where that is not known."""
    for pattern, portuguese in _PROBLEMS:
        found = re.fullmatch(pattern, what)
        if found:
            return found.expand(portuguese)
    return what


def example(text: str) -> str:
    """Return the Portuguese for an example of `rdservice.settings`, which may say how to make a value."""
    return re.sub(r"^the output of ", "a saída de ", text)

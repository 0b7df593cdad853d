"""What scripts/start says on a terminal, in Portuguese or English. Runs on a bare Python: standard library only."""

import os

from rdservice.terminal_language import is_portuguese


def tell(english: str, **values: object) -> str:
    """Return `english` in the terminal's language, with `{name}` replaced by `values`."""
    return (PORTUGUESE[english] if is_portuguese(os.environ) else english).format(**values)


PORTUGUESE = {
    # Said while the packages are installed.
    "Another script of this folder is setting up .venv; waiting for it …": (
        "Outro script desta pasta está preparando o .venv; esperando por ele …"
    ),
    "Making .venv anew: it is unfinished, of another place, or of other packages …": (
        "Refazendo o .venv: está incompleto, é de outro lugar ou tem outros pacotes …"
    ),
    "Making .venv, the folder for Python packages …": "Criando o .venv, a pasta dos pacotes de Python …",
    "Installing {count} packages of {requirements} into .venv …": (
        "Instalando {count} pacotes de {requirements} no .venv …"
    ),
    "  fetching {done} of {count}: {package}": "  baixando {done} de {count}: {package}",
    "  putting {count} packages in place …": "  pondo {count} pacotes no lugar …",
    "Installed in {seconds} s.": "Instalados em {seconds} s.",
    "Installing Debian's python3-venv …": "Instalando o python3-venv do Debian …",
    "This Python lacks `ensurepip`. As root run: {command}": (
        "Falta `ensurepip` neste Python. Como root, rode: {command}"
    ),
    "python3-venv could not be installed. Run as root: {command}": (
        "Não foi possível instalar o python3-venv. Rode como root: {command}"
    ),
    "{folder} is not a folder: move it away.": "{folder} não é uma pasta: tire isso do caminho.",
    "{program} failed.": "{program} falhou.",
    "The disk that holds {folder} is nearly full: about {megabytes} MB are needed.": (
        "O disco de {folder} está quase cheio: são necessários cerca de {megabytes} MB."
    ),
    "Is this machine online? Packages come from pip's package index; PIP_INDEX_URL can name another one, and "
    "HTTPS_PROXY a proxy. Then run the command again: it continues where it stopped.": (
        "Esta máquina está online? Os pacotes vêm do índice de pacotes do pip; PIP_INDEX_URL pode indicar outro, e "
        "HTTPS_PROXY um proxy. Depois rode o comando de novo: ele continua de onde parou."
    ),
    "{file} cannot be written by this user: {reason}. Run this as the user it belongs to, or from a copy of your "
    "own.": (
        "Este usuário não pode gravar {file}: {reason}. Rode como o dono do arquivo ou a partir de uma cópia sua."
    ),
    # Said while the service starts and runs.
    "Port 8000 is taken by another program: this one listens on {url}": (
        "A porta 8000 está ocupada por outro programa: este atende em {url}"
    ),
    "Starting PostgreSQL …": "Iniciando o PostgreSQL …",
    "Starting the sandbox, an imitation of RD Station …": "Iniciando o sandbox, uma imitação do RD Station …",
    "Preparing the database …": "Preparando o banco de dados …",
    "Starting web and worker …": "Iniciando web e worker …",
    "Connecting an account of the sandbox, for the pages to show something …": (
        "Conectando uma conta do sandbox, para as páginas terem o que mostrar …"
    ),
    "The account for a first look could not be connected ({reason}); everything else works.": (
        "A conta para a primeira olhada não pôde ser conectada ({reason}); o resto funciona."
    ),
    "The API key of the last start is no longer valid: making a new one …": (
        "A chave de API do último início não vale mais: criando outra …"
    ),
    "PostgreSQL has died (its log: {file}); starting it again …": (
        "O PostgreSQL morreu (log: {file}); iniciando de novo …"
    ),
    "PostgreSQL is back": "O PostgreSQL voltou",
    "Stopping …": "Encerrando …",
    "the sandbox did not say that it is ready": "o sandbox não disse que está pronto",
    "flask {command} failed:": "flask {command} falhou:",
    "{url}/readyz did not answer 200 within {seconds} s, but {status}": (
        "{url}/readyz não respondeu 200 em {seconds} s, e sim {status}"
    ),
    "{file} cannot be used by this user. Choose another folder: RDSERVICE_DATA_DIR=…": (
        "Este usuário não pode usar {file}. Escolha outra pasta: RDSERVICE_DATA_DIR=…"
    ),
    # Said when it is ready.
    "The service is ready: {url}": "O serviço está pronto: {url}",
    "e-mail": "e-mail",
    "password": "senha",
    "API key": "chave de API",
    "Open that address and log in. An account of the sandbox, “{account}”, is connected already, so that there is "
    "something to look at. Connect your own on the page, or from here with tokens of the sandbox:": (
        "Abra esse endereço e entre. Uma conta do sandbox, “{account}”, já está conectada, para ter o que ver. Conecte "
        "a sua na página, ou daqui mesmo com tokens do sandbox:"
    ),
    "Log in there and connect the account, or connect it from a terminal with tokens of the sandbox:": (
        "Entre nesse endereço e conecte a conta, ou conecte-a do terminal com tokens do sandbox:"
    ),
    "(Put tokens in place of …: {reason}.)": "(Ponha tokens no lugar de …: {reason}.)",
    "The sandbox, an imitation of RD Station, is {sandbox_url}. All of this is also in": (
        "O sandbox, uma imitação do RD Station, é {sandbox_url}. Tudo isto está também em"
    ),
    "Ctrl-C ends everything; the next start keeps it.": "Ctrl-C encerra tudo; o próximo início guarda o que há.",
    "Nobody was given access, because the database or the app of RD Station is your own. To log in, and to make a key "
    "for programs that upload tokens (POST {url}/rd/tokens):": (
        "Ninguém recebeu acesso, porque o banco de dados ou o aplicativo do RD Station é seu. Para entrar, e para "
        "criar uma chave para os programas que enviam tokens (POST {url}/rd/tokens):"
    ),
    "Settings that were missing were made and are in {file}: keep a copy of TOKEN_ENCRYPTION_KEYS, without which the "
    "stored tokens cannot be read. Ctrl-C ends everything.": (
        "As configurações que faltavam foram criadas e estão em {file}: guarde uma cópia de TOKEN_ENCRYPTION_KEYS, sem "
        "a qual os tokens guardados não podem ser lidos. Ctrl-C encerra tudo."
    ),
}

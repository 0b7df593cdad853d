"""Generates accounts and leads from a seed, each independently: the 100,000th lead costs as much as the first."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any
from uuid import UUID

# 64 of each: six bits choose one.
_FIRST_NAMES = (
    "Adriana Alessandra Aline Amanda Ana André Antônio Beatriz Bianca Bruna Bruno Caio Camila Carla Carlos Carolina "
    "Cecília Cláudia Daniel Daniela Davi Débora Diego Eduardo Elaine Fábio Felipe Fernanda Fernando Flávia Francisco "
    "Gabriel Gabriela Guilherme Gustavo Helena Henrique Igor Isabela João Joaquim José Júlia Juliana Larissa Leonardo "
    "Letícia Lívia Lucas Luísa Luiz Marcelo Márcia Marcos Mariana Mateus Natália Patrícia Paulo Pedro Rafael Renata "
    "Thiago Vitória"
)
FIRST_NAMES = _FIRST_NAMES.split()
_LAST_NAMES = (
    "Alencar Almeida Alves Andrade Araújo Azevedo Barbosa Barros Batista Borges Brito Caldeira Cardoso Carvalho "
    "Castro Cavalcanti Correia Costa Cunha Dias Duarte Farias Fernandes Ferreira Figueiredo Fonseca Freitas Gomes "
    "Gonçalves Guimarães Jesus Lacerda Leite Lima Lopes Machado Magalhães Marques Martins Medeiros Melo Mendes "
    "Miranda Monteiro Moraes Moreira Moura Nascimento Nogueira Nunes Oliveira Pereira Pinto Queiroz Ramos Reis "
    "Ribeiro Rocha Rodrigues Santos Silva Souza Teixeira Vieira"
)
LAST_NAMES = _LAST_NAMES.split()
CITIES = (
    ("São Paulo", "SP", "11"),
    ("Rio de Janeiro", "RJ", "21"),
    ("Belo Horizonte", "MG", "31"),
    ("Florianópolis", "SC", "48"),
    ("Curitiba", "PR", "41"),
    ("Porto Alegre", "RS", "51"),
    ("Salvador", "BA", "71"),
    ("Recife", "PE", "81"),
)
JOB_TITLES = (
    "Analista de Marketing",
    "Diretora Comercial",
    "Gerente de Vendas",
    "Sócio",
    "Coordenadora de TI",
    "CEO",
)
TAGS = ("newsletter", "ebook", "webinar", "evento", "trial", "indicação", "blog", "parceiro")
SEGMENTS = (
    "Indústria",
    "Varejo",
    "Educação",
    "Saúde",
    "Tecnologia",
    "Serviços",
    "Agronegócio",
    "Imobiliário",
)
COMPANY_SIZES = ("1-10", "11-50", "51-200", "201-500", "mais de 500")
STAGES = ("Client", "Qualified Lead", "Qualified Lead", *["Lead"] * 7)

FIRST_CREATED_AT = datetime(2021, 1, 4, 12, tzinfo=UTC).timestamp()
SECONDS_BETWEEN_LEADS = 10
BRASILIA = timezone(timedelta(hours=-3))
EMAIL = re.compile(r"[a-z.]+\.([1-9][0-9]{0,9})@example\.(?:com|org)")
MASK_32 = 0xFFFF_FFFF
MASK_64 = 0xFFFF_FFFF_FFFF_FFFF
ODD_32 = 0x9E37_79B1
INVERSE_ODD_32 = pow(ODD_32, -1, 1 << 32)


def timestamp(seconds: float) -> str:
    """Return Unix seconds as RD Station writes times: `2018-03-13T14:09:02.724-03:00`."""
    return datetime.fromtimestamp(seconds, BRASILIA).isoformat(timespec="milliseconds")


def plain_letters(text: str) -> str:
    """Return the text in lower case without accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


PLAIN_FIRST_NAMES = [plain_letters(name) for name in FIRST_NAMES]
PLAIN_LAST_NAMES = [plain_letters(name) for name in LAST_NAMES]


def number_of(*parts: object) -> int:
    """Return 64 bits that depend only on the parts."""
    return int.from_bytes(blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def account_name(seed: int, account: str) -> str:
    """Return the name of an RD account, such as `Padaria Moreira (account-2)`."""
    number = number_of(seed, "account", account)
    trade = ("Padaria", "Escola", "Clínica", "Oficina", "Livraria", "Construtora", "Agência", "Cafeteria")[
        number & 7
    ]
    return f"{trade} {LAST_NAMES[(number >> 3) % len(LAST_NAMES)]} ({account})"


def account_id(seed: int, account: str) -> int:
    """Return the number that analytics report as `account_id`."""
    return number_of(seed, "account-id", account) % 9_000_000 + 1_000_000


def _mix(value: int) -> int:
    """Splitmix64: scrambles neighbouring numbers."""
    value = (value + 0x9E37_79B9_7F4A_7C15) & MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58_476D_1CE4_E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D0_49BB_1331_11EB) & MASK_64
    return value ^ (value >> 31)


@dataclass(frozen=True, slots=True)
class LeadSource:
    """The leads of one account, by index from 0 in the order of their creation."""

    key: int

    @classmethod
    def of(cls, seed: int, account: str) -> LeadSource:
        return cls(number_of(seed, "leads", account))

    def _bits(self, index: int) -> int:
        return _mix(self.key ^ (index * 0xD1B5_4A32_D192_ED03 & MASK_64))

    def uuid(self, index: int) -> str:
        """The first 32 bits are the scrambled index, so that the lead can be found by its UUID."""
        bits = self._bits(index)
        scrambled = (index * ODD_32 & MASK_32) ^ (self.key & MASK_32)
        number = (scrambled << 96) | ((bits << 32 | _mix(bits) & MASK_32) & ((1 << 96) - 1))
        return str(UUID(int=number, version=4))

    def index_of_uuid(self, uuid: str) -> int | None:
        try:
            scrambled = UUID(uuid).int >> 96
        except ValueError:
            return None
        index = ((scrambled ^ (self.key & MASK_32)) * INVERSE_ODD_32) & MASK_32
        return index if self.uuid(index) == uuid.lower() else None

    def name(self, index: int) -> str:
        bits = self._bits(index)
        return f"{FIRST_NAMES[bits & 63]} {LAST_NAMES[bits >> 6 & 63]} {LAST_NAMES[bits >> 12 & 63]}"

    def email(self, index: int) -> str:
        bits = self._bits(index)
        domain = "example.com" if bits >> 18 & 3 else "example.org"
        return f"{PLAIN_FIRST_NAMES[bits & 63]}.{PLAIN_LAST_NAMES[bits >> 6 & 63]}.{index + 1}@{domain}"

    def index_of_email(self, email: str) -> int | None:
        match = EMAIL.fullmatch(email.lower())
        if match is None:
            return None
        index = int(match[1]) - 1
        return index if self.email(index) == email.lower() else None

    def created_at(self, index: int) -> float:
        """Unix seconds; grows with the index."""
        spread_ms = (self._bits(index) >> 20) % (SECONDS_BETWEEN_LEADS * 1_000)
        return FIRST_CREATED_AT + index * SECONDS_BETWEEN_LEADS + spread_ms / 1_000

    def last_conversion(self, index: int) -> float:
        """Unix seconds, within 90 days of the creation."""
        return self.created_at(index) + (self._bits(index) >> 34) % (90 * 86_400_000) / 1_000

    def fields(self, index: int) -> dict[str, Any]:
        """Return the members that `GET /platform/contacts/{uuid}` has beyond those of a list."""
        bits = _mix(self._bits(index))
        city, state, area_code = CITIES[bits & 7]
        first = PLAIN_FIRST_NAMES[self._bits(index) & 63]
        return {
            "name": self.name(index),
            "email": self.email(index),
            "job_title": JOB_TITLES[(bits >> 3) % len(JOB_TITLES)],
            "bio": f"Trabalha em {city}.",
            "website": f"https://www.example.com/{first}",
            "personal_phone": f"{area_code} 3{bits >> 8 & 0xFFFFF:07d}",
            "mobile_phone": f"{area_code} 9{bits >> 28 & 0xFFFFFF:08d}",
            "city": city,
            "state": state,
            "country": "Brasil",
            "linkedin": f"https://www.example.com/in/{first}-{index + 1}",
            "twitter": f"@{first}{index + 1}",
            "facebook": f"https://www.example.org/{first}.{index + 1}",
            "tags": sorted({TAGS[bits >> 6 & 7], TAGS[bits >> 9 & 7]}),
            "extra_emails": [],
            "cf_segmento": SEGMENTS[bits >> 12 & 7],
            "cf_numero_de_funcionarios": COMPANY_SIZES[(bits >> 15) % len(COMPANY_SIZES)],
            "legal_bases": [
                {
                    "category": "communications",
                    "type": "consent",
                    "status": "granted" if bits >> 20 & 7 else "declined",
                }
            ],
        }

    def company(self, index: int) -> dict[str, Any]:
        return {"name": f"{LAST_NAMES[self._bits(index) >> 12 & 63]} & Filhos Ltda."}

    def funnel(self, index: int) -> dict[str, Any]:
        """Return the contact's state in the funnel `default`."""
        bits = _mix(self._bits(index))
        stage = STAGES[index % len(STAGES)]
        return {
            "name": "default",
            "lifecycle_stage": stage,
            "opportunity": stage == "Qualified Lead" and bool(bits >> 40 & 1),
            "contact_owner_email": f"vendas{(bits >> 41 & 3) + 1}@example.com",
            "interest": bits >> 43 & 127,
            "fit": "abcd"[bits >> 50 & 3],
            "origin": ("Busca Orgânica", "Tráfego Direto", "Social", "Email")[bits >> 52 & 3],
        }

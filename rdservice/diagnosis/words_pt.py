"""The findings' sentences in Brazilian Portuguese: for each, what was seen, what it means, what to do."""

from rdservice.diagnosis.words_en import Words

_RESTART = "Depois reinicie o web e o worker."
_BY_ITSELF = "O serviço tenta de novo automaticamente; nenhuma conta precisa ser conectada de novo."
_PASSES = (
    "O serviço tenta de novo automaticamente e, enquanto isso, entrega o que tem. Consulte a página de status do RD"
    " Station se isso durar mais de uma hora."
)
_RECONNECT = "Conecte a conta de novo: “Conectar de novo” na página de status, ou {login}."
_WHERE = "onde o serviço lê as configurações (as variáveis de ambiente ou o arquivo .env)"
_CALLBACK = (
    "Coloque em RDSTATION_REDIRECT_URI a URL de callback deste serviço, exatamente como está cadastrada no aplicativo"
    " da RD Station App Store, por exemplo {example}. " + _RESTART
)
_NO_START = "O web e o worker não iniciam com essas configurações (código de saída 78)."
_WORKER_TODO = (
    "Inicie-o com “python -m worker” (no Heroku: “heroku ps:scale worker=1”) e consulte o log se ele parar."
)
_UNEXPECTED = (
    "RDSTATION_API_URL pode levar a outro lugar, um proxy pode estar respondendo, ou o aplicativo mudou na App"
    " Store."
)
_UNEXPECTED_TODO = (
    "Verifique RDSTATION_API_URL (normalmente https://api.rd.services), os proxies no caminho e o aplicativo na RD"
    " Station App Store."
)

_NOT_AGAIN = " Não conecte as contas de novo."
_CLOCK = (
    "É o relógio do banco de dados que decide quando renovar os tokens. Enquanto ele está errado, os horários nas"
    " páginas"
    " estão errados e, quando ele salta, os tokens podem ser renovados tarde demais."
)
_CLOCK_TODO = (
    "Acerte o relógio do computador em que o PostgreSQL roda, por NTP. Não é preciso reiniciar nada."
)
_CLOCK_HERE = (
    "Quem decide quando renovar é o banco de dados; mas conexões seguras falham quando um relógio está muito errado,"
    " e os"
    " horários nos logs estão errados."
)

WORDS: dict[str, Words] = {
    "settings_broken": Words(
        "{what}",
        _NO_START,
        "Corrija {variable} " + _WHERE + ". Exemplo: {variable}={example}. " + _RESTART,
    ),
    "settings_broken/file": Words(
        "{what}",
        "O web e o worker não iniciam enquanto um arquivo de configuração não puder ser lido (código de saída 78).",
        "Corrija as permissões ou a codificação do arquivo, ou remova-o. " + _RESTART,
    ),
    "settings_broken/encoding": Words(
        "{what}",
        _NO_START,
        "Escreva de novo o valor de {variable} " + _WHERE + ". " + _RESTART,
    ),
    "redirect_uri_holds_secret": Words(
        "{what}",
        "Há um segredo no lugar da URL de callback. " + _NO_START,
        _CALLBACK + " Se outras pessoas podem ter visto o segredo ali, gere um novo na App Store.",
    ),
    "client_secret_holds_url": Words(
        "{what}",
        "Há uma URL no lugar do client secret, provavelmente trocada com RDSTATION_REDIRECT_URI. "
        + _NO_START,
        "Copie o client secret do aplicativo na RD Station App Store para RDSTATION_CLIENT_SECRET. "
        + _RESTART,
    ),
    "redirect_uri_local_host": Words(
        "{what}",
        "Depois do consentimento, o RD Station mandaria os operadores para os próprios computadores. "
        + _NO_START,
        _CALLBACK,
    ),
    "redirect_uri_not_https": Words(
        "{what}",
        "O código de autorização viajaria sem proteção. " + _NO_START,
        _CALLBACK,
    ),
    "redirect_uri_wrong_path": Words(
        "{what}",
        "O RD Station mandaria os operadores para um endereço que este serviço não tem. " + _NO_START,
        _CALLBACK,
    ),
    "database_unreachable": Words(
        "Não foi possível acessar o PostgreSQL: {error}",
        "Os tokens e os leads ficam no banco de dados: sem ele, nada é entregue e nada é renovado.",
        "Verifique se o servidor está rodando e se DATABASE_URL tem o host, a porta, o banco, o usuário e a senha"
        " corretos.",
    ),
    "database_unreachable/failing": Words(
        "O PostgreSQL respondeu, mas falhou: {error}",
        "Os tokens e os leads ficam no banco de dados: o que não pode ser lido ali não é entregue nem renovado.",
        "Consulte o log do PostgreSQL neste horário; verifique a carga, o espaço em disco e as permissões do usuário de"
        " DATABASE_URL.",
    ),
    "migrations_pending": Words(
        "Faltam estas migrações no banco de dados: {migrations}",
        "As tabelas não servem para esta versão do serviço.",
        "Execute “flask release” com as mesmas configurações e rode este diagnóstico de novo.",
    ),
    "database_read_only": Words(
        "O PostgreSQL não aceita gravações: é um servidor standby, ou está em modo somente leitura.",
        "Os tokens não podem ser renovados, porque a resposta do RD Station não poderia ser guardada. Os access"
        " tokens são"
        " entregues até vencer.",
        "Aponte DATABASE_URL para o servidor primário, ou encerre a proteção (muitas vezes, o disco está cheio). Não é"
        " preciso reiniciar nada.",
    ),
    "key_missing": Words(
        "Os tokens da conta {account} precisam da chave {needed}; TOKEN_ENCRYPTION_KEYS tem {there}.",
        "Os tokens estão intactos, mas não podem ser decifrados nem renovados enquanto isso. Todos os outros são.",
        "Acrescente a chave que falta a TOKEN_ENCRYPTION_KEYS, depois de uma vírgula (a primeira chave é a que cifra). "
        + _RESTART
        + " Só se a chave foi perdida: conecte a conta de novo.",
    ),
    "value_damaged": Words(
        "Um token guardado da conta {account} não pode ser decifrado, embora a chave esteja presente.",
        "O valor foi alterado, cortado ou copiado de outra linha ou coluna.",
        "Restaure a linha de um backup ou conecte a conta de novo: {login}.",
    ),
    "value_damaged/earlier": Words(
        "A renovação da conta {account} encontrou um refresh token que não pôde decifrar.",
        "O valor estava danificado naquele momento; agora pode ser lido, mas a conta espera uma nova autorização.",
        "Use “flask accounts refresh {account}” para tentar o token que está lá agora, ou conecte a conta de novo.",
    ),
    "token_not_encrypted": Words(
        "Um token da conta {account} está guardado sem criptografia.",
        "Ele vem de um backend antigo ou foi gravado à mão; o serviço não o usa assim.",
        "Execute “flask release”, que o cifra.",
    ),
    "credentials_refused": Words(
        "O RD Station recusa o client ID ou o client secret; ele será consultado de novo em {wait}.",
        "As configurações estão erradas, ou o segredo foi trocado na App Store. Nenhum token pode ser renovado até isso"
        " ser corrigido; os tokens guardados são mantidos, e os access tokens funcionam até vencer.",
        "Compare RDSTATION_CLIENT_ID e RDSTATION_CLIENT_SECRET com o aplicativo na RD Station App Store. "
        + _RESTART
        + _NOT_AGAIN,
    ),
    "credentials_refused/swapped": Words(
        "O RD Station recusa o client ID e o client secret, que parecem trocados; ele será consultado de novo em"
        " {wait}.",
        "RDSTATION_CLIENT_SECRET tem a forma de um client ID, e RDSTATION_CLIENT_ID não tem. Nenhum token pode ser"
        " renovado"
        " até isso ser corrigido; os tokens guardados são mantidos.",
        "Coloque cada um na sua variável, como a RD Station App Store os mostra. " + _RESTART + _NOT_AGAIN,
    ),
    "credentials_refused/id_form": Words(
        "O RD Station recusa o client ID ou o client secret; ele será consultado de novo em {wait}.",
        "RDSTATION_CLIENT_ID não tem a forma do client ID de um aplicativo (8-4-4-4-12 caracteres). A página da conta"
        " no RD"
        " Station mostra outros ids e tokens, e o RD Station CRM tem os seus: eles não funcionam aqui. Os tokens"
        " guardados"
        " são mantidos.",
        "Copie o client ID e o client secret do aplicativo na RD Station App Store. " + _RESTART + _NOT_AGAIN,
    ),
    "credentials_refused/earlier": Words(
        "O RD Station recusou as credenciais do aplicativo na última renovação de {count} conta(s).",
        "As configurações daqui não foram recusadas: ou foram alteradas depois, ou o worker roda com outras.",
        "Reinicie o worker, para que tenha as mesmas configurações; as contas são então renovadas automaticamente.",
    ),
    "rdstation_unreachable": Words(
        "Sem resposta de {api_url} a {operation} ({answer}).",
        "O RD Station está fora do ar, ou esta máquina não consegue acessá-lo. " + _BY_ITSELF,
        "Verifique a rede, o DNS, o firewall e o proxy desta máquina, RDSTATION_API_URL e a página de status do RD"
        " Station.",
    ),
    "rdstation_unreachable/dns": Words(
        "O nome de {api_url} não pôde ser resolvido ({reason}).",
        "O servidor de nomes desta máquina não conhece o endereço do RD Station. " + _BY_ITSELF,
        "Verifique o servidor de nomes (DNS) e a rede desta máquina, e a grafia de RDSTATION_API_URL.",
    ),
    "rdstation_unreachable/tcp": Words(
        "Não foi possível conectar a {api_url} ({reason}).",
        "O nome é conhecido, mas nada aceita conexões ali: há um firewall no caminho, ou o RD Station está fora do ar. "
        + _BY_ITSELF,
        "Verifique o firewall desta máquina e se ela precisa de um proxy (HTTPS_PROXY). De outra rede: o RD Station"
        " funciona, e o que diz a página de status dele?",
    ),
    "rdstation_unreachable/tls": Words(
        "Houve conexão com {api_url}, mas não uma conexão segura (TLS) ({reason}).",
        "Algo no caminho inspeciona o tráfego, o relógio desta máquina está errado, ou o RD Station está com"
        " problemas. " + _BY_ITSELF,
        "Verifique o relógio desta máquina e qualquer proxy que inspecione TLS: o certificado dele deve estar em um"
        " arquivo"
        " indicado por REQUESTS_CA_BUNDLE. Os tokens não são enviados sem TLS.",
    ),
    "rdstation_unreachable/silent": Words(
        "{api_url} aceita conexões, mas não responde a {operation} ({answer}).",
        "O caminho até o RD Station está livre; é o RD Station que não responde. " + _BY_ITSELF,
        _PASSES,
    ),
    "rdstation_unreachable/earlier": Words(
        "A última renovação de {count} conta(s) ficou sem resposta de {api_url} ({kinds}).",
        "O RD Station estava fora do ar, ou esta máquina não conseguia acessá-lo. " + _BY_ITSELF,
        "Se continuar: verifique a rede, o DNS, o firewall e o proxy desta máquina, RDSTATION_API_URL e a página de"
        " status do RD Station.",
    ),
    "forbidden_by_gateway": Words(
        "Algo na frente do RD Station proíbe {operation} (HTTP 403, que não tem a forma própria do RD Station).",
        "Um proxy ou firewall desta rede, ou a proteção do RD Station contra ataques, recusa esta máquina. Não há nada"
        " errado com os tokens. " + _BY_ITSELF,
        "Verifique os proxies e firewalls desta rede e RDSTATION_API_URL. Se não houver nenhum, informe ao suporte do"
        " RD"
        " Station o endereço público desta máquina e o horário.",
    ),
    "rdstation_failing": Words(
        "O RD Station respondeu a {operation} com um erro interno ({answer}).",
        "O RD Station está com um problema. " + _BY_ITSELF,
        _PASSES,
    ),
    "rdstation_failing/earlier": Words(
        "A última renovação de {count} conta(s) encontrou um erro do RD Station ({kinds}).",
        "O RD Station estava com um problema. " + _BY_ITSELF,
        _PASSES,
    ),
    "rdstation_unexpected": Words(
        "{api_url} respondeu a {operation} de um modo que o RD Station não responde ({answer}).",
        _UNEXPECTED,
        _UNEXPECTED_TODO,
    ),
    "rdstation_unexpected/earlier": Words(
        "A última renovação de {count} conta(s) recebeu uma resposta que o RD Station não dá ({kinds}).",
        _UNEXPECTED,
        _UNEXPECTED_TODO,
    ),
    "redirect_uri_not_registered": Words(
        "O RD Station não abre a tela de consentimento para {uri} ({answer}).",
        "Esta URL de callback não está cadastrada no aplicativo exatamente assim, ou RDSTATION_CLIENT_ID é de outro"
        " aplicativo. Ninguém consegue conectar uma conta; as que já estão conectadas continuam sendo renovadas.",
        "Compare RDSTATION_REDIRECT_URI com a URL de callback do aplicativo na RD Station App Store, letra por letra, e"
        " também RDSTATION_CLIENT_ID. Depois de uma mudança lá, o RD Station pode levar uma hora. "
        + _RESTART,
    ),
    "worker_not_running": Words(
        "O worker não está rodando: o último sinal de vida foi há {silence}.",
        "Nenhum token é renovado; cada access token deixa de funcionar quando vence.",
        _WORKER_TODO,
    ),
    "worker_not_running/never": Words(
        "O worker não está rodando: não há sinal de vida de nenhum.",
        "Nenhum token é renovado; cada access token deixa de funcionar quando vence.",
        _WORKER_TODO,
    ),
    "clock_skew": Words(
        "O relógio do banco de dados está {skew} adiantado em relação ao do RD Station.",
        _CLOCK,
        _CLOCK_TODO,
    ),
    "clock_skew/behind": Words(
        "O relógio do banco de dados está {skew} atrasado em relação ao do RD Station.",
        _CLOCK,
        _CLOCK_TODO,
    ),
    "clock_skew/machine": Words(
        "O relógio deste computador está {skew} adiantado em relação ao do RD Station; o do banco de dados está certo.",
        _CLOCK_HERE,
        "Acerte o relógio deste computador, por NTP.",
    ),
    "clock_skew/machine_behind": Words(
        "O relógio deste computador está {skew} atrasado em relação ao do RD Station; o do banco de dados está certo.",
        _CLOCK_HERE,
        "Acerte o relógio deste computador, por NTP.",
    ),
    "no_account": Words(
        "Nenhuma conta do RD Station está conectada.",
        "Não há tokens, portanto não há nada a renovar nem leads a entregar.",
        "Entre, abra /rd/login e dê o consentimento no RD Station, ou envie tokens com POST /rd/tokens.",
    ),
    "no_account/unknown": Words(
        "Não existe a conta {account}.",
        "Há outras contas conectadas, mas nenhuma com este nome.",
        "Confira o nome (“flask accounts list” mostra todas) ou conecte-a: {login}.",
    ),
    "reauthorization_required": Words(
        "O RD Station não aceita mais o refresh token da conta {account}.",
        "Provavelmente o aplicativo foi removido da conta do RD Station, ou o acesso foi revogado lá.",
        _RECONNECT,
    ),
    "reauthorization_required/answer_lost": Words(
        "O refresh token da conta {account} foi gasto numa renovação cuja resposta se perdeu.",
        "A conexão caiu, ou um processo foi morto, enquanto o RD Station respondia. Não há nada errado nas"
        " configurações.",
        _RECONNECT,
    ),
    "reauthorization_required/no_refresh_token": Words(
        "Não há refresh token para a conta {account}.",
        "Sem ele, o access token da conta não pode ser renovado.",
        _RECONNECT,
    ),
    "upload_refused": Words(
        "O RD Station recusou o último refresh token enviado para a conta {account}.",
        "O par que estava lá antes voltou a ser usado.",
        "Envie um novo par, se a intenção era usar a outra conta do RD Station; senão, nada a fazer.",
    ),
    "refresh_refused": Words(
        "O RD Station recusou renovar a conta {account} ({error}).",
        "Ainda não é certo que o refresh token morreu: isso só vale depois de três recusas em dez minutos.",
        "Espere dez minutos e olhe de novo. Se você removeu o aplicativo no RD Station, conecte a conta de novo:"
        " {login}.",
    ),
    "token_expired": Words(
        "O access token da conta {account} venceu há {ago}.",
        "Ele não foi renovado a tempo: até lá o RD Station não responde nada para esta conta.",
        "Corrija o que está acima; depois a renovação é automática, ou imediata: “flask accounts refresh {account}”.",
    ),
    "audience_old": Words(
        "O access token da conta {account} foi feito para {aud}, não para {api_url}.",
        "O RD Station pode recusá-lo: ele vem de uma API antiga ou de outro produto do RD Station.",
        _RECONNECT,
    ),
    "unauthorized_api": Words(
        "O RD Station recusa os leads (HTTP 401), embora o access token da conta {account} seja novo.",
        "Os tokens são renovados, mas não dão acesso ao RD Station Marketing: falta ao aplicativo ou à conta.",
        "Verifique as permissões do aplicativo na RD Station App Store e se a conta tem o RD Station Marketing; depois"
        " conecte-a de novo: {login}.",
    ),
    "unauthorized_api/same_token": Words(
        "O RD Station recusa os leads (HTTP 401) com o access token da conta {account}, que não pôde ser renovado.",
        "O access token não vale mais: foi revogado, ou substituído em outro lugar.",
        "Tente “Renovar agora” na página de status em alguns minutos; se continuar, conecte a conta de novo:"
        " {login}.",
    ),
    "scope_missing": Words(
        "O access token da conta {account} abrange “{scope}”, mas é preciso “{required}”.",
        "O RD Station pode recusar os leads: o consentimento não os incluiu.",
        "Verifique as permissões do aplicativo na RD Station App Store e RDSTATION_SCOPE; depois conecte a conta de"
        " novo: {login}.",
    ),
    "plan_without_api": Words(
        "O RD Station proíbe os leads para a conta {account} (HTTP 403), embora o access token dela os abranja.",
        "A conexão está certa. O mais provável é que o plano da conta do RD Station não inclua a API, ou que ela"
        " tenha sido"
        " suspensa.",
        "Pergunte ao suporte do RD Station, ou a quem cuida do contrato, se o plano da conta inclui o acesso à API."
        " Não é"
        " preciso conectar de novo.",
    ),
    "forbidden_api": Words(
        "O RD Station proíbe os leads para a conta {account} (HTTP 403).",
        "O token funciona, mas não pode ler leads: o consentimento, o aplicativo ou o plano da conta não os inclui.",
        "Verifique as permissões do aplicativo ({scope}) na RD Station App Store e o plano da conta; depois conecte a"
        " conta de novo: {login}.",
    ),
    "rate_limited": Words(
        "O RD Station pede menos requisições: {operation} recebeu a resposta {answer}.",
        "O limite de requisições por minuto foi gasto, por este serviço ou por outros programas na mesma conta.",
        "Nada, se passar em um minuto. Se voltar: diminua RDSTATION_RATE_LIMIT, ou descubra o que mais chama o RD"
        " Station.",
    ),
    "rate_limited/budget": Words(
        "As chamadas que RDSTATION_RATE_LIMIT permite por minuto foram gastas; os leads não foram testados.",
        "O serviço chama o RD Station tanto quanto pode; enquanto isso, os leads vêm do cache.",
        "Nada, se passar em um minuto. Se voltar: chame menos vezes, ou aumente RDSTATION_RATE_LIMIT se o plano da"
        " conta permitir mais.",
    ),
    "rate_limited/earlier": Words(
        "O RD Station pediu menos requisições na última renovação de {count} conta(s).",
        "A renovação espera o tempo que o RD Station quiser.",
        "Nada: a renovação é tentada de novo automaticamente.",
    ),
    "refresh_backing_off": Words(
        "A renovação da conta {account} falhou {failures} vez(es) ({error}); a próxima tentativa é em {wait}.",
        "A pausa protege o RD Station e vale também para “Renovar agora”.",
        "Nada: a renovação é tentada de novo automaticamente.",
    ),
    "unverified": Words(
        "Os tokens enviados da conta {account} ainda não foram testados.",
        "O RD Station não pôde ser consultado quando foram enviados.",
        "Nada: o worker os testa em até um minuto.",
    ),
    "notifications_failing": Words(
        "{count} aviso(s) do último dia não chegaram ({kinds}).",
        "Talvez ninguém saiba que uma conta precisa de alguém.",
        "Veja a página Avisos, corrija NOTIFY_URLS ou o destino e envie um teste de lá.",
    ),
    "notifications_failing/unusable": Words(
        "{what}",
        "O web e o worker rodam, mas nenhum aviso chega a este destino.",
        "Corrija a entrada em {variable} " + _WHERE + ". Exemplo: {example}. " + _RESTART,
    ),
}

"""The account of Azure Blob Storage that a URL or the environment variables name."""

import os
import urllib.parse

import pyarrow.fs

VARIABLES = {
    "account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"),
    "sas_key": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
    "endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""obstore's option to the variables that set it; `AZURE_STORAGE_CONNECTION_STRING` has priority."""
_CONNECTION_STRING = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "SharedAccessSignature": "sas_key",
    "BlobEndpoint": "endpoint",
}
# The account of every emulator of Azure: public, in Microsoft's documentation.
_EMULATOR = {
    "account_name": "devstoreaccount1",
    "account_key": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "endpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


def account_options(host: str | None) -> dict[str, str]:
    """Return the options of deltalake and obstore for an account.

    Args:
        host: that of `abfss://container@account.dfs.core.windows.net/…`; without it, the variables name the account.

    Raises:
        ValueError: neither names an account.
    """
    options = _connection_string(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    if os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true"):
        options = _EMULATOR | options
    options |= {
        name: value
        for name, variables in VARIABLES.items()
        if name not in options and (value := _first_variable(*variables))
    }
    account = (host or "").partition(".")[0]
    if host and account != options.get("account_name"):
        # The credentials of another account are no use.
        options = {"account_name": account, "endpoint": f"https://{host.replace('.dfs.', '.blob.', 1)}"}
    if "account_name" not in options:
        raise ValueError("names no storage account: set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING")
    return options


def _first_variable(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _connection_string(text: str) -> dict[str, str]:
    fields = dict(field.split("=", 1) for field in text.split(";") if "=" in field)
    if fields.get("UseDevelopmentStorage", "").lower() == "true":
        return dict(_EMULATOR)
    options = {option: fields[name] for name, option in _CONNECTION_STRING.items() if fields.get(name)}
    if "endpoint" not in options and "account_name" in options and "EndpointSuffix" in fields:
        scheme = fields.get("DefaultEndpointsProtocol", "https")
        options["endpoint"] = f"{scheme}://{options['account_name']}.blob.{fields['EndpointSuffix']}"
    return options


def arrow_filesystem(options: dict[str, str]) -> pyarrow.fs.FileSystem:
    """Return Arrow's filesystem of an account with the options of `account_options`."""
    account = options["account_name"]
    places = {}
    if "endpoint" in options:
        endpoint = urllib.parse.urlsplit(options["endpoint"])
        # With a dot at its begin, an authority follows the account's name; else the account is in the path.
        blob = endpoint.netloc[len(account) :] if endpoint.netloc.startswith(f"{account}.") else endpoint.netloc
        places = {
            "blob_storage_authority": blob,
            "blob_storage_scheme": endpoint.scheme,
            "dfs_storage_authority": blob.replace(".blob.", ".dfs.", 1),
            "dfs_storage_scheme": endpoint.scheme,
        }
    credentials = {"account_key": options.get("account_key"), "sas_token": options.get("sas_key")}
    if credentials["account_key"]:
        credentials["sas_token"] = None  # Arrow refuses both
    return pyarrow.fs.AzureFileSystem(account, **credentials, **places)

"How tests speak to the command line."

from cryptoalgo.workbench.cli import main


def say(capsys, *args):
    "Exit code, stdout, stderr of a call."
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err

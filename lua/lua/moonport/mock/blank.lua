--- The script of the mocks that are made over the control API: it has none at first.
require("moonport.mock")
